"""`spillway explain`: the decision record of a request, in words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from spillway import cluster
from spillway.admin import DEFAULT_GATEWAY_URL, AdminError, NotThereError, escaped, get_json
from spillway.options import Parsers, add_command

EXAMPLES = """
examples:
  curl -si http://127.0.0.1:8080/v1/chat/completions -d '...' | grep x-request-id
  spillway explain 01JD4ZQ8W3                                  what the gateway decided, and why
  spillway explain 01JD4ZQ8W3 --admin http://127.0.0.1:20103   what a sidecar decided that took the request itself
  spillway explain 01JD4ZQ8W3 --cluster                        asks every proxy of the cluster that kubectl talks to
  spillway explain 01JD4ZQ8W3 -o json | jq '.attempts[0].candidates'

Without scorers a score is the predicted wait for the first token, in tokens of work: what waits before the request and its own, times the
endpoint's slowness and failures. The lowest wins. With scorers it is their weighted sum, each beside it, and the highest wins.
A proxy keeps the records of its last requests in memory (--decisions, 1024); its admin page /decisions gives all of them, one JSON
object a line. They hold no content.

exit codes: 0 done, 1 no such record or no proxy there, 2 the command line is wrong
"""


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "explain",
        "Tells why a request went where it did: the rule that matched, the endpoints that were compared with their scores, the ones "
        "that a filter took out, and how it ended.",
        EXAMPLES,
        run,
    )
    parser.add_argument("request_id", metavar="REQUEST_ID", help="the x-request-id header of the answer")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the output")
    parser.add_argument("--admin", default=DEFAULT_GATEWAY_URL, metavar="URL", help="admin address of the proxy that was asked")
    cluster.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the record; the exit code."""
    try:
        record = (
            cluster.record(args, args.request_id)
            if cluster.asked_for(args)
            else get_json(args.admin, f"/explain/{escaped(args.request_id)}", part="gateway")
        )
    except NotThereError as error:
        who = str(error) if cluster.asked_for(args) else f"the proxy at {args.admin} has no record"
        print(f"spillway explain: {who} of request {args.request_id}", file=sys.stderr)
        return 1
    except AdminError as error:
        print(f"spillway explain: {error}", file=sys.stderr)
        return 1
    print(json.dumps(record, indent=2) if args.output == "json" else "\n".join(lines(record)))
    return 0


def lines(record: Mapping[str, Any]) -> list[str]:
    """The record as a person reads it."""
    streamed = ", streamed" if record.get("stream") else ""
    routers = record.get("routers") or 1
    told = [
        f"request    {record.get('requestId', '')}",
        f"asked      {record.get('type', '?')} of model {record.get('model', '?')}{streamed}, about {record.get('promptTokens', 0)} prompt tokens",
        f"matched    route {record.get('route') or '-'}, rule {record.get('rule') or '-'}",
        f"by         profile {record.get('profile') or 'Default'}, snapshot {record.get('snapshot', '?')}, with {routers} router{'s' if routers != 1 else ''} at work",
    ]
    for number, attempt in enumerate(record.get("attempts") or [], 1):
        told += _attempt(number, attempt, highest=record.get("best") == "highest")
    return [*told, f"outcome    {_outcome(record)}"]


def _attempt(number: int, attempt: Mapping[str, Any], *, highest: bool) -> list[str]:
    chosen = attempt.get("endpoint")
    failure = attempt.get("failure")
    told = [
        f"attempt {number}  backend {attempt.get('backend', '?')}, endpoint {chosen or 'none'}"
        + (f": failed, {failure}" if failure else "")
    ]
    if attempt.get("diverted"):
        told.append(f"           {attempt['diverted']}")
    candidates = attempt.get("candidates") or []
    width = max((len(str(candidate.get("endpoint"))) for candidate in candidates), default=0)
    sign = -1.0 if highest else 1.0
    scored = sorted(
        (c for c in candidates if c.get("score") is not None), key=lambda c: (c.get("endpoint") != chosen, sign * c["score"])
    )
    for place, candidate in enumerate(scored):
        note = "chosen" if candidate.get("endpoint") == chosen else "runner-up" if place == 1 else ""
        parts = ", ".join(f"{name} {value:g}" for name, value in (candidate.get("parts") or {}).items())
        columns = (
            f"{candidate.get('endpoint')!s:<{width}}",
            f"score {candidate['score']:.4g}",
            note,
            f"({parts})" if parts else "",
        )
        told.append("           " + "  ".join(column for column in columns if column))
    told += [
        f"           {candidate.get('endpoint')!s:<{width}}  out: {candidate.get('eliminated') or 'not compared'}"
        for candidate in candidates
        if candidate.get("score") is None
    ]
    return told


def _outcome(record: Mapping[str, Any]) -> str:
    parts = [str(record.get("outcome") or "under way")]
    if record.get("status"):
        parts.append(f"status {record['status']}")
    if record.get("ttftSeconds") is not None:
        parts.append(f"first token after {_span(record['ttftSeconds'])}")
    if record.get("durationSeconds") is not None:
        parts.append(f"done after {_span(record['durationSeconds'])}")
    return ", ".join(parts)


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
