"""Pure: which endpoint of a cluster a request goes to.

`state` is the picture that this router has of an endpoint: what it sent itself, what the last report said, how slow the
endpoint has shown itself, whether it is down. A `profile` is made of filters, scorers and a picker; the default one compares predicted
waits. `homes` says where a key belongs, alike for all routers. Decisions are local; reports only correct them.
"""
