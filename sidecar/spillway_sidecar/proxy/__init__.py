"""The hot path: raw protocols on both sides and one pass over the bytes between them.

`head` and `framing` are the grammar of HTTP/1.1 as we accept it, `downstream` reads requests from clients, `upstream` is a
connection to an endpoint and the pool that keeps it, `exchange` is the life of one request between the two. `route` is the
route listener's site and `attempt` chooses where each of its requests goes; `inbound` guards an engine (the inbound listener).
`swap` puts a snapshot in force, `sweep` enforces every deadline.
"""
