"""Pure: load becomes weights.

`pressure` says how hard a backend is pressed, as one number; `weights` turns declared weights and pressures into effective
ones. Routers treat the result as a target for the division between backends; the choice of an endpoint, and every fast
reaction, is theirs.
"""
