"""Pure state machines of admission: the limiter with its bounded queue, and the retry budget."""
