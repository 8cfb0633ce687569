"""Where things are in the tree. Nothing here is made by importing it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"

#: Kept from run to run, to make the next one faster; safe to delete.
TEMPLATES = BUILD / "local"

#: Written by deploy/local/setup: a memcached >= 1.6.28.
MEMCACHED = BUILD / "memcached" / "memcached"


def outrigger() -> Path:
    """The sidecar under test: $OUTRIGGER_BINARY, or the release build."""
    return Path(os.environ.get("OUTRIGGER_BINARY") or BUILD / "proxy" / "outrigger")
