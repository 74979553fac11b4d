"""Pure: gathered facts become conditions and status figures.

`facts` says what is gathered, `reasons` names every reason, `backend` and `route` are chains of small policies (one function
a condition), and `conditions` settles decisions against the conditions that stand.
"""
