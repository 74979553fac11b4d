"""The reconciler: a dirty queue of keys; for each key gather plain data, ask the pure packages, apply what they return.

Level-triggered: a key says that something about an object may differ, never what. Whatever is missed or told twice, the next
pass over the key sees the world as it stands.
"""
