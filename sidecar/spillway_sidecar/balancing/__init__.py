"""Pure choice of a backend by condition, and of an endpoint within it: what routing and scheduling say, put together.

`choose` goes through the priorities of a rule; `fallback` knows when one has become too bad, `spill` when one is too full; `conditions`
keeps both from one snapshot to the next.
"""
