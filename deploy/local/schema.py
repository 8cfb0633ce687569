"""The tables that Outrigger itself uses, as deploy/schema.sql makes them."""

import re
from typing import List

from . import paths
from .mariadb import MariaDB


def _statements() -> List[str]:
    text = re.sub(r"--[^\n]*", "", (paths.ROOT / "deploy/schema.sql").read_text())
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def create(database: MariaDB, name: str) -> None:
    """Those that are not there yet."""
    for statement in _statements():
        database.query(statement, database=name)
