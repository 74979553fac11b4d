"""The contract between operator and proxies.

Typed structures and names only: snapshot resources (`snapshot`), stream messages (`messages`), load reports (`loads`), the
load that rides on responses (`orca`), and names of headers and paths (`names`). Both sides import it; it imports nothing of
ours, so that another proxy could speak the stream from the JSON Schemas in `schema/` alone.

Structures are msgspec's: decoding validates types and bounds in one pass, and the sidecar's process carries no second
schema library. A field a reader does not know is skipped, so that old and new releases meet during an upgrade.
"""

from typing import Final

VERSION: Final = "0.1.0"  # of all parts, as they are released together; images hold no package metadata to ask
