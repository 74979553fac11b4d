"""How many replicas a backend should have. Pure: no clock, no I/O; the caller passes monotonic `now`.

- `windows`: a mean and a highest value over the last seconds.
- `needs`: what a backend is asked for and what a replica does -> replicas that are needed, by signal.
- `victims`: which replica goes first.
- `decider`: needs over time -> how many replicas there should be, with a reason.
"""
