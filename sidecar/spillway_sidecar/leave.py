"""Tells the proxy in this pod that the pod is being deleted: `python -m spillway_sidecar.leave [--linger SECONDS]`.

A `preStop` hook, so it imports nothing beyond the standard library and is done in a blink. It asks the admin listener over
loopback, which nobody outside of the pod can. `--linger` keeps a gateway listening until those who send to it have heard that
it leaves; SIGTERM follows when the hook ends.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import time
from collections.abc import Mapping

TIMEOUT_SECONDS = 2.0


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """0 when the proxy was told, 1 when it could not be: then SIGTERM alone has to do."""
    parser = argparse.ArgumentParser(prog="python -m spillway_sidecar.leave", description="Tells this pod's proxy to drain.")
    parser.add_argument("--admin-port", type=int, default=environ.get("SPILLWAY_ADMIN_PORT", "8082"), help="of the proxy")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds to wait afterwards")
    options = parser.parse_args(argv)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", options.admin_port, timeout=TIMEOUT_SECONDS)
        connection.request("POST", "/drain", headers={"content-length": "0"})
        told = connection.getresponse().status == http.HTTPStatus.OK
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"the proxy could not be told: {error}\n")
        told = False
    time.sleep(options.linger)
    return 0 if told else 1


if __name__ == "__main__":
    sys.exit(main())
