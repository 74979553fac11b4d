"""What took long to make, kept in the user's cache folder under a name that tells what it was made from."""

import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.layout import cache_folder


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name; `make` fills it where it is not there.

    A half-made one is never found: it is made aside and renamed. Two checkouts may want the same at the same time: the second
    waits and finds what the first made.
    """
    folder = cache_folder() / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{name}.lock")):
        if folder.exists():
            return folder
        start = time.monotonic()
        aside = folder.with_name(f".{name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        make(aside)
        aside.replace(folder)
        say(f"{name} made in {time.monotonic() - start:.0f} s")
    return folder


def say(text: str) -> None:
    print(f"e2e: {text}", file=sys.stderr, flush=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for somebody else who makes the same ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
