"""The compiled loops of memory: write, read, walk the tree of places, resample.

They work on the `Columns` of `layout` and keep its invariants:

* a chunk's ``row`` is the row of its block ``(used - 1) // ROW_SLOTS``; with ``table == -1`` that is block 0;
* slots that were never written are NaN, so a gap needs no work when it is jumped over;
* the chunks of a series are linked by increasing ``start``, and ``newest`` ends the chain.

A kernel takes records from `pools` and never fails half way: it takes all it needs for one sample first.
Times are int64 seconds within +-2**60, so sums with steps and slots do not overflow.

A field of a record is written ``records[i]["field"]``, not ``records["field"][i]``: the latter makes an array
first, which costs more than the access.
"""
