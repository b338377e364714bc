"""The kernels that walk the tree of places: find series and make them, check them, free them."""

from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.kernels.pools import PLACE, SERIES, changed, free_chunk, give, take
from ccstore.memory.layout import COLUMNS, DORMANT, UNUSED

i4, i8, marks = slots_of("i4"), slots_of("i8"), slots_of("?")
number, flag, nothing = types.int64, types.boolean, types.void


@inline
def make_place(columns, parent, is_host):
    """See `add_place`."""
    places = columns.places
    place = take(places["sibling"], columns.pools, PLACE)
    if place < 0:
        return place
    above, sibling = -1, -1
    if parent >= 0:
        above, sibling = places[parent]["host"], places[parent]["child"]
        places[parent]["child"] = place
    if sibling >= 0:
        places[sibling]["before"] = place
    places[place]["parent"] = parent
    places[place]["child"] = -1
    places[place]["sibling"] = sibling
    places[place]["before"] = -1
    places[place]["series"] = -1
    places[place]["host"] = place if is_host else above
    return place


@kernel(COLUMNS, number, flag)
def add_place(columns, parent, is_host):
    """Add a place below another one (-1: the root itself); -1 if there is no room."""
    return make_place(columns, parent, is_host)


@kernel(COLUMNS, i4, flag, i4, returns=nothing)
def add_places(columns, parents, is_host, out):
    """Do what `add_place` does below each of many."""
    for k in range(len(parents)):
        out[k] = make_place(columns, parents[k], is_host)


@kernel(COLUMNS, i4, i4, i4, number)
def enlist(columns, at_places, metrics, ids, allowance):
    """Find or make the series of (place, metric) pairs; returns how many were made.

    Writes ids: int32, -1 where a series would have to be made beyond `allowance` or beyond
    the room there is.
    """
    series, places = columns.series, columns.places
    made = 0
    for k in range(len(at_places)):
        place, metric = at_places[k], metrics[k]
        s = places[place]["series"]
        while s >= 0 and series[s]["metric"] != metric:
            s = series[s]["next"]
        if s < 0 and made < allowance:
            s = take(series["next"], columns.pools, SERIES)
            if s >= 0:
                series[s]["newest"], series[s]["metric"], series[s]["place"] = DORMANT, metric, place
                series[s]["next"], places[place]["series"] = places[place]["series"], s
                made += 1
        ids[k] = s
    return made


@inline
def following(places, root, place, inside):
    """Return the place after `place` in a walk below root, parents first; -1 at the end."""
    if inside and places[place]["child"] >= 0:
        return places[place]["child"]
    while place != root and places[place]["sibling"] < 0:
        place = places[place]["parent"]
    return -1 if place == root else places[place]["sibling"]


@kernel(COLUMNS, i4, i8, i4, i4, i8)
def collect(columns, roots, offsets, metrics, out, ends):
    """Find the live series of a metric that a read of places combines, for groups of places.

    Group g are the places roots[offsets[g]:offsets[g + 1]], and the metric metrics[g]. A place's
    own series hides those of the places below it. The series of group g end at ``out[ends[g]]``.
    Returns how many groups fit into `out`, from the first one on.
    """
    places, series = columns.places, columns.series
    found = 0
    for g in range(len(metrics)):
        for k in range(offsets[g], offsets[g + 1]):
            place = roots[k]
            while place >= 0:
                s = places[place]["series"]
                while s >= 0 and not (series[s]["metric"] == metrics[g] and series[s]["newest"] >= 0):
                    s = series[s]["next"]
                if s >= 0:
                    if found == len(out):
                        return g
                    out[found] = s
                    found += 1
                place = following(places, roots[k], place, s < 0)
        ends[g] = found
    return len(metrics)


@kernel(COLUMNS, i4, marks)
def find_live(columns, roots, live):
    """Tell for each place whether anything is stored at it or below; returns for how many it is."""
    places, series, found = columns.places, columns.series, 0
    for k in range(len(roots)):
        place = roots[k]
        live[k] = False
        while place >= 0 and not live[k]:
            s = places[place]["series"]
            while s >= 0 and not live[k]:
                live[k] = series[s]["newest"] >= 0
                s = series[s]["next"]
            place = following(places, roots[k], place, True)
        found += live[k]
    return found


@kernel(COLUMNS, number, number, i8, i8, returns=nothing)
def check_health(columns, root, now, fresh, stale):
    """Count, for each metric, the series below a place whose newest slot is fresh or stale."""
    places, series, chunks = columns.places, columns.series, columns.chunks
    fresh[:], stale[:] = 0, 0
    place = root
    while place >= 0:
        s = places[place]["series"]
        while s >= 0:
            chunk, metric = series[s]["newest"], series[s]["metric"]
            if chunk >= 0:
                f = columns.frequency[metric]
                if now - (chunks[chunk]["start"] + f * chunks[chunk]["used"]) <= 5 * f:
                    fresh[metric] += 1
                else:
                    stale[metric] += 1
            s = series[s]["next"]
        place = following(places, root, place, True)


@inline
def free_series(columns, s, cutoff, saved_only):
    """Free the chunks of a series that end before the cutoff; returns how many.

    A chunk ends one frequency behind the time of its last slot, which is the slot's middle. With
    `saved_only`, chunks that are not wholly saved stay, and what is newer than they are.
    """
    chunks, f = columns.chunks, columns.frequency[columns.series[s]["metric"]]
    chunk, kept, freed = columns.series[s]["newest"], -1, 0
    while chunk >= 0:
        if chunks[chunk]["start"] + f // 2 + f * chunks[chunk]["used"] >= cutoff or (
            saved_only and chunks[chunk]["saved"] < chunks[chunk]["used"]
        ):
            kept = chunk
        chunk = chunks[chunk]["older"]
    chunk = chunks[kept]["older"] if kept >= 0 else columns.series[s]["newest"]
    if chunk >= 0:  # older chunks end earlier, so all that are left go
        if kept >= 0:
            chunks[kept]["older"] = -1
        else:
            columns.series[s]["newest"] = DORMANT
    while chunk >= 0:
        older = chunks[chunk]["older"]
        free_chunk(columns, chunk)
        freed, chunk = freed + 1, older
    return freed


@kernel(COLUMNS, number, number, flag)
def free_below(columns, root, cutoff, saved_only):
    """Free all chunks at and below a place that end before the cutoff; returns how many.

    With `saved_only`, what is not saved stays. Series that lose their last chunk become dormant.
    """
    places, series = columns.places, columns.series
    freed, place = 0, root
    while place >= 0:
        vanished, s = False, places[place]["series"]
        while s >= 0:
            if series[s]["newest"] >= 0:
                freed += free_series(columns, s, cutoff, saved_only)
                vanished = vanished or series[s]["newest"] < 0
            s = series[s]["next"]
        if vanished:
            changed(columns, place)
        place = following(places, root, place, True)
    return freed


@inline
def prune_series(columns, place, dead):
    """Remove the dormant series of one place that are marked in `dead`."""
    series, places = columns.series, columns.places
    previous, s = -1, places[place]["series"]
    while s >= 0:
        after = series[s]["next"]
        if series[s]["newest"] < 0 and s < len(dead) and dead[s]:
            if previous >= 0:
                series[previous]["next"] = after
            else:
                places[place]["series"] = after
            series[s]["newest"] = UNUSED
            give(series["next"], columns.pools, SERIES, s)
        else:
            previous = s
        s = after


@inline
def is_empty(places, place):
    """Tell whether a place has neither series nor children."""
    return places[place]["child"] < 0 and places[place]["series"] < 0


@inline
def remove_place(columns, place):
    """Take an empty place out of the tree; its record still tells its parent."""
    places = columns.places
    before, sibling = places[place]["before"], places[place]["sibling"]
    if before >= 0:
        places[before]["sibling"] = sibling
    else:
        places[places[place]["parent"]]["child"] = sibling
    if sibling >= 0:
        places[sibling]["before"] = before
    give(places["sibling"], columns.pools, PLACE, place)


@inline
def deepest(places, place):
    """Return where a walk below a place begins that comes to children before their parents."""
    while places[place]["child"] >= 0:
        place = places[place]["child"]
    return place


@kernel(COLUMNS, number, marks, i4)
def prune(columns, root, dead, removed):
    """Remove marked dormant series, then empty places: at and below a place, and its empty parents.

    Writes the removed places in their order, children first; returns how many. Place 0 stays.
    """
    places, count, place = columns.places, 0, deepest(columns.places, root)
    while True:
        prune_series(columns, place, dead)
        parent, sibling = places[place]["parent"], places[place]["sibling"]
        if place != 0 and is_empty(places, place):
            remove_place(columns, place)
            removed[count] = place
            count += 1
        if place == root:
            break
        place = deepest(places, sibling) if sibling >= 0 else parent
    while parent > 0 and is_empty(places, parent):
        place, parent = parent, places[parent]["parent"]
        remove_place(columns, place)
        removed[count] = place
        count += 1
    return count
