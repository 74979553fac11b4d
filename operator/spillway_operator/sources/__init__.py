"""Where resources come from. A source puts what it sees into the store; the rest of the operator does not know which one it is."""
