"""kubectl as the tests call it: what a user types, and what a user is told."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


class Refused(AssertionError):  # a test that did not expect it fails with what kubectl said
    """kubectl ended with an error."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl for one cluster, and one namespace where it has one."""

    environment: Mapping[str, str]
    namespace: str | None = None
    identity: str | None = None  # --as

    def within(self, namespace: str) -> "Kubectl":
        return replace(self, namespace=namespace)

    def acting_as(self, identity: str) -> "Kubectl":
        return replace(self, identity=identity)

    def command(self, *arguments: str) -> list[str]:
        options = [f"--namespace={self.namespace}"] if self.namespace else []
        options += [f"--as={self.identity}"] if self.identity else []
        return ["kubectl", *options, *arguments]

    def said(self, *arguments: str, given: Any = None) -> Said:
        """Runs kubectl; `given` goes to its standard input (as JSON, which is YAML, unless it is text)."""
        text = given if isinstance(given, str) or given is None else json.dumps(given)
        done = subprocess.run(
            self.command(*arguments),
            env={**os.environ, **self.environment},
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str, given: Any = None) -> str:
        said = self.said(*arguments, given=given)
        if said.code:
            raise Refused(f"kubectl {' '.join(arguments)}: {said.err.strip()}")
        return said.out

    def apply(self, *documents: Mapping[str, Any], options: Sequence[str] = ("--server-side",)) -> str:
        return self("apply", *options, "--filename=-", given={"apiVersion": "v1", "kind": "List", "items": list(documents)})

    def get(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "--output=json"))


def eventually(check: Callable[[], Any], *, seconds: float, every: float = 0.1) -> Any:
    """What `check` returns once that is true; an error that it raises counts as not yet, and is raised when time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            if result or time.monotonic() > deadline:
                assert result, f"not so after {seconds:g} s"
                return result
        time.sleep(every)
