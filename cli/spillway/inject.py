"""`spillway inject`: puts the sidecar into manifests by hand, as the webhook does it for labelled pods."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spillway.options import Parsers, add_command

if TYPE_CHECKING:
    from spillway_operator.injection import InjectionConfig, Look

DESCRIPTION = """\
Prints manifests with the sidecar in their pods: Pod, Deployment, StatefulSet, DaemonSet, Job,
CronJob, LeaderWorkerSet, Lists of them. What makes no pods is printed as it is. What was done is
told on standard error.

How sidecars are made is the installation's to say: --config takes its settings, which the chart
keeps in a ConfigMap. Or name --image and --operator-url yourself.

A cluster with the webhook does this by itself for pods labelled spillway.dev/inject: "true" in
namespaces labelled spillway.dev/injection: enabled, and leaves alone what was injected by hand.
"""

EXAMPLES = """
examples:
  kubectl -n spillway-system get configmap spillway-injection \\
      -o jsonpath='{.data.injection\\.json}' > injection.json
  spillway inject --config injection.json -f engine.yaml | kubectl apply -f -
  kubectl get deploy engine -o yaml | spillway inject --config injection.json -f - | kubectl apply -f -

exit codes: 0 done, 1 a pod got no sidecar although it could not do without, 2 the command line or a file is wrong
"""


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(subparsers, "inject", DESCRIPTION, EXAMPLES, run)
    parser.add_argument(
        "-f", "--filename", action="append", required=True, metavar="FILE", help="YAML or JSON; - is standard input"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the installation's settings for sidecars, as JSON")
    parser.add_argument("--image", metavar="IMAGE", help="the sidecar's image, in place of the settings'")
    parser.add_argument("--operator-url", metavar="URL", help="e.g. https://spillway-operator.spillway-system.svc:8083")
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM file of the authority that the operator's certificate is from"
    )
    parser.add_argument("-n", "--namespace", default="", help="of objects that name none")


def run(args: argparse.Namespace) -> int:
    """Print the manifests; the exit code."""
    import yaml

    from spillway_operator.injection import inject_manifest

    try:
        config = _config(args)
        documents = list(_documents(args.filename))
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"spillway inject: {error}", file=sys.stderr)
        return 2
    amiss = False
    results = [inject_manifest(document, config, args.namespace) for document in documents]
    for look in (look for result in results for look in result.looks):
        amiss |= _tell(look)
    yaml.safe_dump_all((result.document for result in results), sys.stdout, sort_keys=False, width=120, explicit_start=True)
    return int(amiss)


def _config(args: argparse.Namespace) -> InjectionConfig:
    from spillway_operator.injection import InjectionConfig
    from spillway_operator.injection.config import from_document

    given = {"image": args.image, "operator_url": args.operator_url}
    if args.ca_file is not None:
        given["operator_ca"] = args.ca_file.read_text(encoding="ascii")
    given = {name: value for name, value in given.items() if value}
    if args.config is not None:
        try:
            document = json.loads(args.config.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{args.config}: {error}") from error
        return dataclasses.replace(from_document(document), **given)
    if not {"image", "operator_url"} <= given.keys():
        raise ValueError("name the installation's settings with --config, or both --image and --operator-url")
    return InjectionConfig(**given)


def _documents(names: list[str]) -> Iterator[Any]:
    import yaml

    for name in names:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        try:
            yield from (document for document in yaml.safe_load_all(text) if document is not None)
        except yaml.YAMLError as error:
            raise ValueError(f"{name}: {error}") from error


def _tell(look: Look) -> bool:
    """One line; whether something is amiss."""
    if look.decision is None:
        return False
    said = look.decision.warning.removeprefix("spillway: ") or str(look.decision.outcome).replace("_", " ")
    print(f"{look.title}: {said}", file=sys.stderr)
    return bool(look.decision.warning)
