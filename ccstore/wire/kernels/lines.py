"""The kernel that scans lines.

It handles what it is sure of and leaves every other line to Python, so it never has to raise or to
explain. What makes it quick:

* The raw bytes of a key are looked up; nothing is split or decoded.
* A sender repeats its keys in nearly the same order. Each key remembers which one came next the
  last time, and a line is compared with that guess first: no hash, no search for the key's end.
* Where the guesses are wrong, many keys are looked up together, so that their cache misses overlap.
* Of a new key, the measurement and the tags are looked up each for itself: most are known.
"""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, prefetch, slots_of
from ccstore.model import Outcome
from ccstore.wire.kernels.keycache import bucket_of, find, look_up
from ccstore.wire.kernels.numbers import parse_tail
from ccstore.wire.kernels.text import (
    BACKSLASH,
    COMMA,
    HASH,
    NEWLINE,
    SPACE,
    end_of_key,
    end_of_line,
    has_quote,
    hash_of,
    is_plain,
    same_bytes,
)
from ccstore.wire.layout import EVERYWHERE, KEYS, MAX_KEY_BYTES, PIECE

POSITION, PART, LINES, ROWS, TODO, PREVIOUS, QUOTED, WORK, PROGRESS = range(9)
"""Index of `progress`: next byte; the part it is in, and lines done in that; rows written, and how many of
them are left to do; last known key; 1 if a line with a quote is next; see MOST_WORK."""
ROW, BEGIN, TAGS, KEY_STOP, LINE_STOP, MESSAGE, LINE, METRIC, PLACE, DOMAIN, ENTRY = range(11)
"""Columns of `todo`: the row; offsets of the line, its tags, their end, its end; which line of
which part it is, the first is 1; ids of metric and place; the key's domain."""
DONE, ODD, AGAIN, REFUSED = -1, -2, -3, -4
"""Instead of the id of a place: nothing is left to do; to be looked into; perhaps the tags of an
ODD entry before it; known to have names that no place may have."""
TAG, KEY, AHEAD = 0, 4, 5
"""Columns of `ahead`, beside BEGIN and KEY_STOP."""
LOST = 8
"""So many wrong guesses in a row mean that keys come in no known order."""
MOST_WORK = 16 * 1024
"""So much work beside that for known keys ends a step. A byte of an ODD entry, which Python looks into,
is 1, of an entry that is AGAIN 1/4, because it may turn out ODD, of another line 1/64."""

BLANK, UNKNOWN_METRIC = int(Outcome.BLANK), int(Outcome.UNKNOWN_METRIC)
REFUSED_COMPONENT = int(Outcome.REFUSED_COMPONENT)
LEFT, QUOTED_LINE = -1, -2
"""Instead of an outcome: the line is left to Python, as an entry or because it has a quote."""
UNKNOWN, ODD_NAME = -1, -2
"""Instead of the id of a metric: it is none; it takes the full grammar to tell."""

text, ends = slots_of("u1", writable=False), slots_of("i8", writable=False)
u1, i4, i8, f4 = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f4")
i8_rows, number = slots_of("i8", dimensions=2), types.int64


@inline
def guess_key(keys, data, begin, stop, domain, previous):
    """Return the key that followed the previous one the last time; -1 if the line has another."""
    records = keys.records
    guess = np.int64(records[previous]["follower"])
    if guess < 0:
        return guess
    length, after = np.int64(records[guess]["length"]), np.int64(records[guess]["follower"])
    if after >= 0:  # what the next two lines need is a cache miss each where keys lie scattered
        prefetch(keys.arena, np.int64(records[after]["piece"]) * PIECE)
        prefetch(records, max(np.int64(records[after]["follower"]), 0))
    of = records[guess]["domain"]
    if (
        begin + length < stop
        and data[begin + length] == SPACE
        and (of == EVERYWHERE or of == domain)
        and length > 0
        and same_bytes(data, begin, keys.arena, np.int64(records[guess]["piece"]) * PIECE, length)
    ):
        return guess
    return np.int64(-1)


@inline
def find_ahead(keys, data, start, stop, domain, ahead):
    """Look up the keys of the next lines together; returns how many lines that is.

    Bucket, record and bytes of a key are a cache miss each where keys come in random order. One
    line after the other waits for all of them; many lines at a time wait hardly longer than for
    one. A line that goes on behind its newline ends the scan, so what was looked up behind it does
    not matter.
    """
    records, lines, i = keys.records, 0, start
    while lines < len(ahead) and i < stop:
        end = end_of_key(data, i, stop)
        tag = hash_of(data, i, min(end - i, MAX_KEY_BYTES), keys.secrets)
        ahead[lines, BEGIN], ahead[lines, KEY_STOP], ahead[lines, TAG] = i, end, tag
        prefetch(keys.buckets, bucket_of(keys, tag))
        i = end_of_line(data, end, stop) + 1
        lines += 1
    for k in range(lines):
        key = keys.buckets[bucket_of(keys, ahead[k, TAG])]
        ahead[k, KEY] = key
        prefetch(records, max(key, 0))
    for k in range(lines):
        key = ahead[k, KEY]
        while key >= 0 and records[key]["tag"] != ahead[k, TAG]:
            key = records[key]["next"]
        if key >= 0:
            at = np.int64(records[key]["piece"]) * PIECE
            prefetch(keys.arena, at)
            prefetch(keys.arena, at + 63)
    for k in range(lines):
        begin, length = ahead[k, BEGIN], ahead[k, KEY_STOP] - ahead[k, BEGIN]
        ahead[k, KEY] = find(keys, data, begin, length, np.uint32(ahead[k, TAG]), domain)
    return lines


@inline
def find_metric(names, data, start, stop):
    """Return the id of the measurement at data[start], or what stands for it, and where it ends."""
    i = start
    while i < stop and data[i] != COMMA and data[i] != SPACE:
        if data[i] < SPACE or data[i] >= 127 or data[i] == BACKSLASH:
            return ODD_NAME, i
        i += 1
    if i == start or i == stop or data[start] == HASH or i - start > MAX_KEY_BYTES:
        return ODD_NAME, i
    key = look_up(names, data, start, i, EVERYWHERE)
    return (np.int64(names.records[key]["number"]) if key >= 0 else UNKNOWN), i


@inline
def find_place(places, data, start, stop, domain, recent):
    """Return the place that the tags data[start:stop] mean, or what stands for it, and the domain of the key.

    recent: int64[any number], hashes of tags that were not found lately.
    """
    length = stop - start
    if length < 1 or length > MAX_KEY_BYTES:
        return ODD, EVERYWHERE
    tag = hash_of(data, start, length, places.secrets)
    key = find(places, data, start, length, tag, domain)
    if key >= 0:
        return np.int64(places.records[key]["number"]), np.int64(places.records[key]["domain"])
    slot = np.int64(tag) % len(recent)
    before, recent[slot] = recent[slot], np.int64(tag)
    return (AGAIN if before == np.int64(tag) else ODD), EVERYWHERE


@inline
def leave_line(names, places, data, begin, stop, key_stop, sure, longest, domain, entry, recent):
    """Return the outcome of a line whose key is not known or that is not clear, and where it ends.

    The outcome is LEFT if it is for Python to tell; then `entry` is filled, but for what the caller
    knows.
    """
    line_stop = end_of_line(data, begin, stop)
    if line_stop == begin:
        return BLANK, line_stop
    metric, name_stop = find_metric(names, data, begin, line_stop)
    clear = sure and metric != ODD_NAME and is_plain(data, name_stop, key_stop)
    short = line_stop - begin <= longest
    if short and not clear and has_quote(data, begin, line_stop):
        return QUOTED_LINE, line_stop
    if short and metric == UNKNOWN:
        return UNKNOWN_METRIC, line_stop
    entry[BEGIN], entry[TAGS], entry[KEY_STOP], entry[LINE_STOP] = begin, name_stop + 1, -1, line_stop
    entry[METRIC], entry[PLACE] = metric, ODD
    if clear:
        entry[KEY_STOP] = key_stop
        entry[PLACE], entry[DOMAIN] = find_place(places, data, name_stop + 1, key_stop, domain, recent)
        if entry[PLACE] == REFUSED:
            return REFUSED_COMPONENT, line_stop
    return LEFT, line_stop


@kernel(
    KEYS, KEYS, KEYS, text, ends, ends, number, number, number, i4, i8, f4, u1, i8_rows, i8_rows, i8, i8
)  # fmt: skip
def scan_lines(
    keys, names, places, data, starts, stops, domain, now, longest,
    series, times, values, outcomes, todo, ahead, recent, progress,
):  # fmt: skip
    """Scan the lines of all parts data[starts[p]:stops[p]] into the columns; returns the rows in use.

    It goes on from the row and byte in `progress`, and stops early if the columns or `todo` are
    full, after MOST_WORK, or at a line that is not clear and has a quote, which may go on behind
    its newline. Each row gets a series, or series -1 and an outcome, or an entry in `todo`:

    * KEY_STOP >= 0: only the key is not known (printable ASCII, no backslash); value and time are
      set;
    * KEY_STOP == -1: parse the whole line; it may be longer than `longest` bytes.

    The time of a row with an outcome is the offset where its line begins: it has no other use.
    """
    i, part, row, left = progress[POSITION], progress[PART], progress[ROWS], progress[TODO]
    previous, first = progress[PREVIOUS], row - progress[LINES]  # the row of the part's first line
    stop = stops[part] if part < len(starts) else i
    recent[:] = -1
    work, progress[QUOTED] = progress[WORK], 0
    wrong = used = found = 0  # wrong guesses in a row; keys looked up ahead: used and found
    while row < len(series) and left < len(todo) and work < MOST_WORK:
        if i >= stop:
            part += 1
            if part >= len(starts):
                break
            i, stop, first = starts[part], stops[part], row
            continue
        begin, key = i, np.int64(-1)
        if wrong < LOST and previous >= 0:
            key = guess_key(keys, data, begin, stop, domain, previous)
        if key >= 0:
            wrong = 0
            key_stop = begin + np.int64(keys.records[key]["length"])
        else:
            wrong += 1
            if wrong < LOST:
                key_stop = end_of_key(data, begin, stop)
                key = look_up(keys, data, begin, key_stop, domain)
            else:
                if used == found:
                    used, found = 0, find_ahead(keys, data, begin, stop, domain, ahead)
                key_stop, key = ahead[used, KEY_STOP], ahead[used, KEY]
                used += 1
                if used == found:
                    wrong = LOST - 1  # one guess: perhaps order is back
            if key >= 0 and previous >= 0:
                keys.records[previous]["follower"] = key
        if key >= 0:
            previous = key
        value, time, i, sure = parse_tail(data, key_stop, stop, now)
        sure = sure and i - begin <= longest + 1
        series[row], times[row], values[row] = -1, time, value
        if sure and key >= 0:
            series[row] = keys.records[key]["number"]
        else:
            outcome, line_stop = leave_line(
                names, places, data, begin, stop, key_stop, sure, longest, domain, todo[left], recent
            )
            if outcome == QUOTED_LINE:
                progress[QUOTED], i = 1, begin
                break
            i = line_stop + 1
            halvings = 6
            if outcome == LEFT:
                todo[left, ROW], todo[left, MESSAGE], todo[left, LINE] = row, part, row - first + 1
                if todo[left, PLACE] < 0:
                    halvings = 0 if todo[left, PLACE] == ODD else 2
                left += 1
            else:
                outcomes[row], times[row] = outcome, begin
            work += (i - begin) >> halvings
        row += 1
    progress[POSITION], progress[PART], progress[LINES] = min(i, stop), part, row - first
    progress[ROWS], progress[TODO], progress[PREVIOUS], progress[WORK] = row, left, previous, work
    return row


@kernel(KEYS, text, number, u1, i8_rows)
def find_again(places, data, domain, outcomes, todo):
    """Find the places of the entries that are marked AGAIN, once those before them are learned; returns 0."""
    for k in range(len(todo)):
        entry = todo[k]
        if entry[PLACE] != AGAIN:
            continue
        key = look_up(places, data, entry[TAGS], entry[KEY_STOP], domain)
        entry[PLACE] = ODD
        if key >= 0:
            entry[PLACE], entry[DOMAIN] = places.records[key]["number"], places.records[key]["domain"]
        if entry[PLACE] == REFUSED:
            outcomes[entry[ROW]], entry[PLACE] = REFUSED_COMPONENT, DONE
    return 0


@kernel(text, number, number)
def end_of_lines(data, start, stop):
    """Return where the last whole line of data[start:stop] ends: behind its newline, or at `start`."""
    for i in range(stop - 1, start - 1, -1):
        if data[i] == NEWLINE:
            return i + 1
    return start
