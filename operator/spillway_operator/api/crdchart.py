"""Writes the CRDs as templates of the chart: `python -m spillway_operator.api.crdchart [--check] charts/spillway/templates/crds`.

The same text as `crds/` (see `crdgen`), inside a guard, with the chart's labels. Helm installs a chart's `crds/` folder once and
never upgrades it; as templates they follow the release, and the annotation keeps them when it is uninstalled.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from spillway_operator.api import crdgen

_GUARD: Final = "{{- if .Values.crds.enabled }}\n"
_END: Final = "{{- end }}\n"
_METADATA: Final = """\
  labels: {{- include "spillway.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
_AFTER: Final = "\nmetadata:\n"


def template(text: str) -> str:
    """One CRD's text as a template. Raises `ValueError` for a text that Helm would take for instructions."""
    if "{{" in text or "}}" in text:
        raise ValueError("a CRD with {{ or }} in it has to be quoted for Helm first")
    head, found, tail = text.partition(_AFTER)
    if not found:
        raise ValueError("a CRD has metadata")
    return f"{_GUARD}{head}{found}{_METADATA}{tail}{_END}"


def files() -> dict[str, str]:
    """The text of each template by its name."""
    return {name: template(text) for name, text in crdgen.files().items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; the process's exit status."""
    return crdgen.write_or_check(files(), "spillway_operator.api.crdchart", arguments)


if __name__ == "__main__":
    sys.exit(main())
