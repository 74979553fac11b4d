"""A discrete-event simulator that runs the production choice of endpoints against modelled engines.

`engine` is one inference engine as a fluid between events, `traffic` makes or reads traces, `policies` decide (one of them is the
production code, by its own classes), `world` is the event loop that ties routers, reports, faults and engines together,
`measure` turns what happened into figures, and `command` is the sub-command around them.
"""
