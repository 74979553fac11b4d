"""The proxy's end of the stream: the snapshot in force, and load reports out.

- `snapshot`: the value that the data path is compiled from.
- `apply`: pure. A snapshot and an update give the next snapshot, or faults; nothing in between.
- `stream`: one stream's state without I/O: a frame in, answers out.
- `outbox`: reports that wait for the stream, merged so that no counter is lost and the wait is bounded.
- `last_good`: the snapshot on disk, for a start while the operator is away.
- `backoff`: when to try again.
- `client`: the shell: connects, reads, writes, reconnects. `websocket`: its connection, by aiohttp.

The data path never waits for any of it: what is in force stays in force while the stream is down.
"""
