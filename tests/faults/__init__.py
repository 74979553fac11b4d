"""The fault rig: real processes, open-loop load, faults drawn from a seed, and a record of every request.

    load (open loop) -> gateway(s) -> 4 sidecars -> 4 simulated engines
                            ^ relay of the stream ^
                                operator core

Each row of the data path's failure table is an async function in `rows`, which gets a `Bench`: it injects its fault while
`load` sends, and says what it measured. `world` starts, kills and asks processes; `relay` stands in the configuration stream and
spoils frames; `engine` is the simulated engine with harm done to its bytes; `clock` runs a program under a wall clock that jumps.

Every token of every reply carries the request that it is for and its index, so a reply that is cut, doubled, mixed or crossed
shows in the client alone. What a request came to is one `Fate`; four of them are never right, whatever the fault:

* `LOST`: a failure before the first byte, where an endpoint had room;
* `CROSSED`, `DOUBLED`: another request's token, or one out of its order;
* `SILENT`: a reply that ends well for all that the client can tell, and is not whole;
* `HUNG`: no end, in all the time there is.

Loads, faults and places are drawn from the seed; times are the machine's, so a seed repeats what is done and not each outcome.
"""
