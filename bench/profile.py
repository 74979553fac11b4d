"""`python -m bench.profile`: where our gateway's time goes under load.

Two looks at the same load: the kernel's share, from CPU accounting, and the Python functions on top of the stack, from a sampler
outside the process (py-spy, put into the user's cache folder). With `perf` on the path a third: the share of each library.
The raw stacks stay in bench/out/profile.txt, one line a stack, as flame graph tools read them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench import interpreter, machine, measure, ours, peers, report
from bench.peers import OUT

SECONDS = 6
TOP = 30


def cpu_ticks(pid: int) -> tuple[int, int]:
    """User and system time of one process in ticks."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]), int(fields[12])


def functions(stacks: Path) -> str:
    """The functions by their own share and by their share with what they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    total = 0
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if stack.startswith("Thread._bootstrap"):
            continue  # a pool's thread that waits, which the sampler may take for work; requests never leave the main thread
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    percent = "{:.1f} %".format
    rows = (
        [(name, percent(100 * count / total), percent(100 * whole[name] / total)) for name, count in own.most_common(TOP)]
        if total
        else []
    )
    return report.table(("function", "own", "with what it calls"), rows)


def libraries(pid: int, core: int) -> str:
    """The share of kernel, interpreter and each library, where `perf` is there and allowed."""
    if not shutil.which("perf"):
        return "perf is not on the path: no shares of libraries."
    data = OUT / "perf.data"
    record = ["taskset", "-c", str(core), "perf", "record", "-q", "-F", "999", "-o", str(data), "-p", str(pid), "--", "sleep", "2"]
    if subprocess.run(record, capture_output=True, check=False).returncode:
        return "perf may not look at the process (see kernel.perf_event_paranoid): no shares of libraries."
    command = ["perf", "report", "-i", str(data), "--stdio", "-q", "--sort"]
    answers = [
        subprocess.run([*command, sort], capture_output=True, text=True, check=False).stdout for sort in ("dso", "dso,symbol")
    ]
    return "\n\n".join("\n".join(line for line in answer.splitlines() if line.strip())[:3000] for answer in answers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-profile", description="Where our gateway's time goes under load.")
    parser.add_argument("--cell", choices=sorted(measure.CELLS), default="rate", help="which load (default rate)")
    parser.add_argument("options", nargs="*", help="options for the gateway, after --")
    parser.add_argument(interpreter.OPTION, help=interpreter.HELP)
    chosen = parser.parse_args()
    interpreter.become(chosen.python)
    proxy_core, load_core = machine.cores()
    measure.build()
    settings, arguments = measure.CELLS[chosen.cell]
    place = arguments.index("-t") + 1
    held = (*(part for part in arguments[:place] if part != "-1"), str(3 * SECONDS))
    sampler = peers.environment("py-spy") / "bin/py-spy"
    stacks = OUT / "profile.txt"
    peer = ours.interpreted(options=tuple(chosen.options))  # the sampler sees no frames of what is compiled
    failed: dict[str, str] = {}
    with measure.engine(load_core):
        operator = ours.operator(load_core)
        try:
            with measure.running([peer], proxy_core, failed) as pids:
                if failed:
                    print(f"bench: our gateway does not answer: {failed[peer.name]}", file=sys.stderr)
                    return 1
                pid = pids[peer.name]
                measure.set_engine(settings)
                load = measure.load(peer, load_core, held)
                before = cpu_ticks(pid)
                sample = [str(sampler), "record", "-p", str(pid), "-d", str(SECONDS), "-r", "500", "-f", "raw", "-o", str(stacks)]
                subprocess.run(sample, check=True, capture_output=True)
                user, system = (now - then for now, then in zip(cpu_ticks(pid), before, strict=True))
                shares = libraries(pid, load_core)
                load.terminate()
        finally:
            machine.stop([operator])
    tick = os.sysconf("SC_CLK_TCK")
    print(
        f"CPU over {SECONDS} s under '{chosen.cell}': {user / tick:.2f} s in the process, {system / tick:.2f} s in the kernel for it.\n"
    )
    print(functions(stacks), shares, f"Stacks: {stacks.relative_to(peers.ROOT)}", sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
