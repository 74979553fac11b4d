"""How many replicas there would have been: the operator's decider and others, against replicas that take a while to start.

`scenes` says what is asked for and what goes wrong, `scalers` decide (one of them is the production code, by its own classes), `watch`
stands between: what is told and what is written down. Two models answer for the replicas: `fluid`, which runs an hour in a tenth of a second, and
`coupled`, where requests go through the routing simulator's routers and engines. `figures` and `bars` make of a run what is shown.
"""
