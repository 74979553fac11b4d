"""Pure: which endpoint of a cluster a request goes to.

`state` is the picture that this router has of an endpoint: what it sent itself, what the last report said, how slow the
endpoint has shown itself, whether it is down. `picker` compares candidates by the guarded load score. Decisions are local;
reports only correct them.
"""
