"""Lets atheris look for inputs that break what reads other people's bytes: each target for some time, from the corpora on.

    python -m fuzz --python build/fuzz-venv/bin/python [--seconds 120] [NAME ...]

What it finds is printed, and kept in build/fuzz/NAME; the inputs that reached something new stay there for the next time. A finding is
mended, and its bytes go into tests/corpora/found/NAME.toml.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "fuzz"
_LAST = re.compile(r"#(\d+)\s.*cov: (\d+)")


def run(python: str, name: str, seconds: int) -> bool:
    """Whether the target has held."""
    folder = FOLDER / name
    kept = folder / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (kept / hashlib.blake2b(seed, digest_size=10).hexdigest()).write_bytes(seed)
    command = [
        python, "-m", "fuzz.guided", name, str(kept), f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=6000",
        "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
    ]  # fmt: skip
    path = os.pathsep.join(str(ROOT / one) for one in ("", "sidecar", "operator"))
    with (folder / "log").open("w", encoding="utf-8", errors="replace") as log:
        answer = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log, check=False)
    told = (folder / "log").read_text(encoding="utf-8", errors="replace")
    last = _LAST.findall(told)
    runs, reached = last[-1] if last else ("0", "0")
    print(f"{name:14} {runs:>9} runs, {reached:>6} edges, {'held' if not answer.returncode else 'BROKEN'}", flush=True)
    if answer.returncode:
        print(told[-3000:], f"\nthe input lies in {folder}", flush=True)
    return not answer.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="of the environment that has atheris")
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    options = parser.parse_args()
    names = options.names or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    held = [run(options.python, name, options.seconds) for name in names]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
