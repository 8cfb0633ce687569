"""This machine's Debian package catalogue, as a MariaDB data directory with a table `packages`.

The loaded directory is kept under build/demo/, by a hash of the catalogue, so only the first start (and the first after an
`apt-get update` that brought news) has to load it.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple

from .mariadb import MariaDB, empty_template, locked
from .process import ProcessError

SCHEMA = "demo"
TABLE = "packages"

#: Column, its type, and the field of the catalogue that it comes from.
_COLUMNS = [
    ("name", "VARCHAR(200) NOT NULL PRIMARY KEY", "package"),
    ("version", "VARCHAR(200) NOT NULL", "version"),
    ("architecture", "VARCHAR(40) NOT NULL", "architecture"),
    ("section", "VARCHAR(100)", "section"),
    ("priority", "VARCHAR(40)", "priority"),
    ("source", "VARCHAR(300)", "source"),
    ("maintainer", "TEXT", "maintainer"),
    ("installed_size", "BIGINT UNSIGNED", "installed-size"),
    ("download_size", "BIGINT UNSIGNED", "size"),
    ("depends", "MEDIUMTEXT", "depends"),
    ("recommends", "MEDIUMTEXT", "recommends"),
    ("tags", "TEXT", "tag"),
    ("homepage", "TEXT", "homepage"),
    ("description", "TEXT", "description"),
]
_CREATE = f"CREATE TABLE {TABLE} ({', '.join(f'{name} {kind}' for name, kind, _ in _COLUMNS)}) " \
          "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
_BATCH = 500


class Catalogue(NamedTuple):
    template: Path  #: a data directory for MariaDB to start from
    rows: int
    was_kept: bool  #: from an earlier start


def _apt_cache() -> bytes:
    return subprocess.run(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, check=True).stdout


def dump() -> bytes:
    """The catalogue as apt has it; apt-get update is run if it has none. Fails with ProcessError."""
    text = _apt_cache()
    if not text.strip():
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        done = subprocess.run([*sudo, "apt-get", "-q", "update"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        text = _apt_cache()
        if not text.strip():
            raise ProcessError("apt has no package lists (apt-cache dumpavail is empty), and apt-get update said:\n" + done.stdout)
    return text


def parse(text: bytes) -> List[Dict[str, str]]:
    """The packages, each as its fields by lower-case name; the first of several versions."""
    packages: Dict[str, Dict[str, str]] = {}
    for stanza in text.decode(errors="replace").split("\n\n"):
        fields = {}
        for line in stanza.replace("\n ", " ").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                fields[name.lower()] = value.strip()
        # Where there are translations, the field's name carries the language.
        fields.setdefault("description", fields.get("description-en", ""))
        if "package" in fields:
            packages.setdefault(fields["package"], fields)
    return list(packages.values())


def _row(fields: Dict[str, str]) -> tuple:
    return tuple(
        (int(value) if value and value.isdigit() else None) if kind.startswith("BIGINT") else value
        for _, kind, value in ((name, kind, fields.get(field)) for name, kind, field in _COLUMNS))


def _load(packages: List[Dict[str, str]], scratch: Path, progress: Callable[[int, int], None]) -> None:
    """Makes scratch/data."""
    database = MariaDB(scratch, name="mariadb-loader", arguments=["--innodb-flush-log-at-trx-commit=0"])
    try:
        database.start()
        database.query(f"CREATE DATABASE {SCHEMA}")
        connection = database.connect(SCHEMA, autocommit=False)
        with connection, connection.cursor() as cursor:
            # Not in the binlog: a replica starts from a copy of the same directory.
            cursor.execute("SET SESSION sql_log_bin = 0")
            cursor.execute(_CREATE)
            insert = f"INSERT INTO {TABLE} VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
            for start in range(0, len(packages), _BATCH):
                cursor.executemany(insert, [_row(p) for p in packages[start:start + _BATCH]])
                connection.commit()
                progress(min(start + _BATCH, len(packages)), len(packages))
        database.query("RESET MASTER")
        database.stop()
        for binlog in database.data.glob("bin.*"):
            binlog.unlink()
    finally:
        database.close()


def prepare(directory: Path, progress: Callable[[int, int], None]) -> Catalogue:
    """The data directory with this machine's catalogue, kept in `directory`. progress(rows done, rows) is called while it
    is loaded. Fails with ProcessError."""
    text = dump()
    key = hashlib.sha256(b"\0".join([text, _CREATE.encode(), empty_template().name.encode()])).hexdigest()[:16]
    kept = directory / f"catalogue-{key}"
    with locked(directory / ".lock"):
        was_kept = kept.exists()
        if not was_kept:
            scratch = Path(tempfile.mkdtemp(prefix=".loading-", dir=directory))
            try:
                scratch.chmod(0o755)
                packages = parse(text)
                (scratch / "kept").mkdir()
                _load(packages, scratch / "mariadb", progress)
                (scratch / "mariadb" / "data").rename(scratch / "kept" / "data")
                (scratch / "kept" / "rows").write_text(str(len(packages)))
                for old in directory.glob("catalogue-*"):
                    shutil.rmtree(old)
                (scratch / "kept").rename(kept)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return Catalogue(kept / "data", int((kept / "rows").read_text()), was_kept)
