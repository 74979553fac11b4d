"""The operator's end of the stream: snapshots out to proxies, load reports in.

- `session`: pure. One proxy's state, one synchronous step for each message and for the passing of time.
- `updates`: pure. The recent states, and the frames that lead to the newest, each assembled once and shared.
- `hub`: all sessions over transports, without I/O of its own; the carrier of `snapshot.ports`.
- `auth`: who may speak, and for which pod.
- `server`: the aiohttp shell: sockets in, bytes out, a clock.

A proxy has **at most one update on its way**. It answers with an ACK or a NACK; only then is it offered what is newest by
that time. So a slow proxy skips the versions between, the backlog of a connection is one update and one ping by
construction, sending never waits, and a proxy that does not answer within a deadline is closed.
"""
