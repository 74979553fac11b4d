"""Pure choice of a backend by condition, and of an endpoint within it: what routing and scheduling say, put together."""
