"""A simulated inference engine that answers as vLLM does, with tokens of no meaning.

`model` is the engine itself: continuous batching as a pure state machine over time, so that a simulation of thousands of
engines runs the very code that answers here. `faults` decides what goes wrong, `openai` reads requests and words replies,
`exposition` shows the state as an engine would, `http1` frames requests, and `server` is the thin asyncio shell around them.
"""
