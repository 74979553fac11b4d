"""`python images/compiled.py OUT`: the proxy's two packages in OUT, with the modules that every request passes through compiled by mypyc.

The sources are the same, and so is what they do: mypyc makes C of annotated Python, and a proxy of the image runs that. What is not
compiled, on a laptop or in the tests, runs as it stands. OUT goes on PYTHONPATH before anything else. Needs a C compiler.

Three kinds of class would change their meaning when compiled and stay out of compiled modules: messages of msgspec, whose fields
mypyc does not keep with their types, dataclasses with slots, which it cannot make, and classes with a base that is not compiled.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "sidecar"
PACKAGES = ("spillway_sidecar", "spillway_wire")
COMPILED = ("balancing", "flow", "proxy", "routing", "scheduling", "telemetry/stats.py")
_STAYS_OUT = re.compile(r"^class .*\b(?:Struct|OSError)\b[^:]*:|slots=True", re.MULTILINE)

_SETUP = """\
from mypyc.build import mypycify
from setuptools import setup

setup(name="compiled", ext_modules=mypycify(["--strict", "--follow-imports=silent", "--no-warn-unused-ignores", *{modules!r}], opt_level="3"))
"""


def modules(root: Path) -> list[str]:
    """What is compiled, as paths below `root`."""
    parts = [root / PACKAGES[0] / part for part in COMPILED]
    found = [
        path for part in parts for path in (sorted(part.rglob("*.py")) if part.is_dir() else [part]) if path.name != "__init__.py"
    ]
    return [str(path.relative_to(root)) for path in found if not _STAYS_OUT.search(path.read_text())]


def main() -> int:
    """Makes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to make, or to make anew")
    out: Path = parser.parse_args().out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, out / package, ignore=shutil.ignore_patterns("__pycache__"))
    names = modules(out)
    (out / "setup.py").write_text(_SETUP.format(modules=names))
    made = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=out,
        env={**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -g0"},  # the lines of the C are nobody's
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        print(made.stdout + made.stderr, file=sys.stderr)
        shutil.rmtree(out)
        return 1
    for left in ("build", ".mypy_cache"):
        shutil.rmtree(out / left, ignore_errors=True)
    (out / "setup.py").unlink()
    print(f"{len(names)} modules compiled in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
