"""`spillway run`: everything on one machine, as processes on loopback.

`standalone` reads `spillway.yaml`, `layout` says which processes that makes (both pure), on ports that
`ports` finds; `child` keeps one process alive, `supervisor` brings the processes that run to the ones that should, `watch` looks at
the operator's admin page, and `screen` shows what it says.
"""
