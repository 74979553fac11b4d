"""Our proxy beside others on one machine: the same load, the same engine, one core each, turn by turn."""
