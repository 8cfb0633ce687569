"""What the command line does with the database: --init-database, and --check --database."""

import subprocess

import pytest

from local import ports
from local.mariadb import MariaDB
from local.yaml_text import dump


@pytest.fixture(scope="module")
def db(directory):
    db = MariaDB(directory / "mariadb")
    try:
        db.start()
        db.create_schema("shop", "outrigger", "secret")
        yield db
    finally:
        db.close()


def run(binary, tmp_path, address, namespaces, *arguments):
    """Exit status and output."""
    path = tmp_path / "outrigger.yaml"
    path.write_text(dump({"pool": {"nodes": ["127.0.0.1:1"]}, "namespaces": namespaces,
                          "database": {"primary": address, "schema": "shop", "user": "outrigger", "password": "secret", "connect_timeout": "5s"}}))
    done = subprocess.run([binary, "--config", path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60)
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done.returncode, done.stdout


ENTRIES = [{"prefix": "e:", "read": "through", "write": "through", "source": "entries"}]


def test_init_then_check(binary, tmp_path, db):
    status, out = run(binary, tmp_path, db.address, ENTRIES, "--check", "--database")
    assert status == 2 and "namespace e, table outrigger_entries: there is no such table" in out
    for _ in range(2):
        status, out = run(binary, tmp_path, db.address, ENTRIES, "--init-database")
        assert status == 0 and out == "outrigger_entries: is there (namespace e)\noutrigger_heartbeat: is there\n"
    status, out = run(binary, tmp_path, db.address, ENTRIES, "--check", "--database")
    assert status == 0 and "good" in out
    columns = [row["Field"] for row in db.query("SHOW COLUMNS FROM outrigger_entries", database="shop")]
    assert columns == ["cache_key", "value", "flags", "version", "updated_at", "expires_at"]


def test_every_mistake_names_namespace_and_column(binary, tmp_path, db):
    db.query("CREATE OR REPLACE TABLE items (id INT PRIMARY KEY, v TEXT, f VARCHAR(9), must INT NOT NULL) ENGINE=InnoDB", database="shop")
    source = {"table": "items", "key_column": "id", "value_column": "val", "flags_column": "f"}
    status, out = run(binary, tmp_path, db.address, [{"prefix": "i:", "read": "through", "write": "through", "source": source}], "--check", "--database")
    assert status == 2
    assert out.splitlines() == [
        "namespace i, table items: value_column: there is no column val",
        "namespace i, table items: flags_column: column f is varchar(9), and must be an integer",
        "namespace i, table items: column must is NOT NULL, has no default and is not mapped: no row can be inserted",
        "warning: namespace i, table items: without version_column, cas commands are refused",
    ]


def test_no_database(binary, tmp_path):
    nobody = f"127.0.0.1:{ports.pick()}"
    assert run(binary, tmp_path, nobody, ENTRIES, "--check")[0] == 0
    for arguments in (["--check", "--database"], ["--init-database"]):
        status, out = run(binary, tmp_path, nobody, ENTRIES, *arguments)
        assert status == 1 and nobody in out


def test_bad_command_line(binary, tmp_path, db):
    assert run(binary, tmp_path, db.address, ENTRIES, "--database")[0] == 2
    assert subprocess.run([binary, "--pool", "h:1", "--init-database"], stderr=subprocess.DEVNULL, timeout=30, check=False).returncode == 2
