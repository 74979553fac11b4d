"""One target under atheris (libFuzzer with the coverage of Python), in an environment that has it: `python -m fuzz.guided NAME FOLDER ...`."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["spillway_sidecar", "spillway_operator", "spillway_wire"]):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    logging.disable()
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
