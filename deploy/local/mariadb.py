"""One MariaDB server: a primary, or a replica that follows one by GTID."""

import fcntl
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import pymysql
import pymysql.cursors

from . import account, paths, ports, wait
from .process import Process, ProcessError

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
_ADMIN = "admin"
_REPLICATION = "replication"


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise ProcessError(f"{name} is not installed; deploy/local/setup run installs it")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file, against other processes that use the same tree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def empty_template() -> Path:
    """A data directory without schemas, made at the first call ever (1 s) and only copied from then on."""
    version = re.search(r"\d+\.\d+\.\d+", subprocess.check_output([_program("mariadbd"), "--version"], text=True)).group()
    template = paths.TEMPLATES / f"mariadb-{version}-by-uid-{os.geteuid()}"
    with locked(paths.TEMPLATES / ".lock"):
        if not template.exists():
            scratch = Path(tempfile.mkdtemp(dir=paths.TEMPLATES))
            try:
                scratch.chmod(0o755)
                _install(scratch)
                (scratch / "data").rename(template)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return template


def _install(scratch: Path) -> None:
    user = account.for_server(scratch)
    user.own(scratch)
    done = subprocess.run(
        ["setpriv", *user.prefix, "--", _program("mariadb-install-db"), "--no-defaults", f"--datadir={scratch}/data",
         f"--user={user.name}", "--auth-root-authentication-method=normal", "--skip-test-db"],
        cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        raise ProcessError(f"mariadb-install-db: exited with status {done.returncode}:\n{done.stdout[-4000:]}")


class MariaDB:
    """A mariadbd on 127.0.0.1, with all its files in `directory`.

    template:  the data directory to start from, a copy of which is taken at the first start(); by default an empty one.
               A primary and its replica may start from copies of the same one: their binlogs begin after it.
    server_id: must differ within a replication.
    arguments: more options of mariadbd; may be changed before start().
    As root, it runs as nobody (see account.py).
    """

    def __init__(self, directory: Path, *, name: str = "mariadb", server_id: int = 1, port: Optional[int] = None,
                 template: Optional[Path] = None, arguments: Sequence[str] = ()):
        self.name = name
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.port = port or ports.pick()
        self.server_id = server_id
        self._template = template
        self.arguments: List[str] = list(arguments)
        self._secret = secrets.token_hex(16)
        self._replication_secret = secrets.token_hex(16)
        self.process: Process = Process(name, ["mariadbd"], self.directory / "mariadb.log")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """Its unix socket, which is the same in every network namespace. Who comes that way is at localhost, and needs an account there."""
        return self.data / "mariadb.sock"

    # ---- life

    def start(self, deadline: float = wait.DEADLINE) -> "MariaDB":
        """Starts it and waits until it answers a query. Fails with ProcessError."""
        if not self.data.exists():
            self._copy_template()
        user = account.for_server(self.directory)
        self.process.argv = [
            _program("mariadbd"), "--no-defaults", f"--user={user.name}", f"--datadir={self.data}", f"--port={self.port}",
            "--bind-address=127.0.0.1", "--socket=mariadb.sock", "--pid-file=mariadb.pid", f"--tmpdir={self.directory}/tmp",
            f"--init-file={self.directory}/init.sql", "--skip-name-resolve", "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_bin", f"--server-id={self.server_id}", "--log-bin=bin", "--relay-log=relay",
            "--binlog-format=ROW", "--binlog-row-image=MINIMAL", "--binlog-row-metadata=FULL", "--log-slave-updates",
            "--gtid-strict-mode=1", "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=2", "--max-connections=500", *self.arguments]
        self.process.prefix = user.prefix
        self.process.start()
        self.process.wait_until(self._answers, f"answering on port {self.port}", deadline)
        return self

    def _copy_template(self) -> None:
        template = self._template or empty_template()
        self.directory.mkdir(parents=True, exist_ok=True)
        user = account.for_server(self.directory)
        copy = self.directory / "data.new"
        subprocess.run(["cp", "-R", "--reflink=auto", template, copy], check=True)
        (self.directory / "tmp").mkdir(exist_ok=True)
        # The template's accounts need no password, so this one replaces them.
        init = self.directory / "init.sql"
        with open(os.open(init, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write("SET SESSION sql_log_bin = 0;\n"
                    "DELETE FROM mysql.global_priv WHERE User IN ('root', '');\nFLUSH PRIVILEGES;\n"
                    f"CREATE OR REPLACE USER '{_ADMIN}'@'127.0.0.1' IDENTIFIED BY '{self._secret}';\n"
                    f"GRANT ALL ON *.* TO '{_ADMIN}'@'127.0.0.1' WITH GRANT OPTION;\n")
        copy.chmod(0o700)
        user.own(self.directory)
        copy.rename(self.data)

    def _answers(self) -> bool:
        # The directory, because another process may have taken the port.
        return self.query("SELECT @@datadir AS d")[0]["d"].rstrip("/") == str(self.data)

    def stop(self, deadline: float = 60.0) -> None:
        """A clean shutdown, after which the data directory may be copied."""
        code = self.process.stop(deadline)
        if code not in (None, 0):
            raise ProcessError(self.process.describe_end())

    def kill(self) -> None:
        """kill -9; what was committed stays."""
        self.process.kill()

    def restart(self) -> None:
        """A new process on the same port and data, after kill() or instead of the running one."""
        self.process.kill()
        self.start()

    def close(self) -> None:
        """Ends it for good; its data is not left in a state worth copying."""
        self.process.close()

    # ---- use

    def connect(self, database: Optional[str] = None, **options: Any) -> pymysql.connections.Connection:
        """A connection of the administrator, in autocommit mode, whose cursors give dictionaries. `options` are
        pymysql's; user= and password= make it another account's."""
        return pymysql.connect(**{
            "host": "127.0.0.1", "port": self.port, "user": _ADMIN, "password": self._secret, "database": database,
            "charset": "utf8mb4", "autocommit": True, "cursorclass": pymysql.cursors.DictCursor, "connect_timeout": 5,
            **options})

    def query(self, sql: str, arguments: Any = None, database: Optional[str] = None) -> List[Dict[str, Any]]:
        """One statement on a connection of its own; the rows as dictionaries."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def create_schema(self, schema: str, user: str, password: str) -> None:
        """A schema, if it is not there, and an account that may do everything in it, from 127.0.0.1."""
        self.query(f"CREATE DATABASE IF NOT EXISTS `{schema}`")
        self.query(f"CREATE OR REPLACE USER `{user}`@`127.0.0.1` IDENTIFIED BY %s", (password,))
        self.query(f"GRANT ALL ON `{schema}`.* TO `{user}`@`127.0.0.1`")

    def admit_by_socket(self, schema: str, user: str, password: str) -> None:
        """The same account through the server's socket, which is reached from every network namespace."""
        self.query(f"CREATE OR REPLACE USER `{user}`@localhost IDENTIFIED BY %s", (password,))
        self.query(f"GRANT ALL ON `{schema}`.* TO `{user}`@localhost")

    # ---- replication

    def replicate_from(self, primary: "MariaDB", *, delay_s: int = 0, deadline: float = wait.DEADLINE) -> None:
        """Makes it a replica, and waits until it has all that the primary had at the time of the call."""
        secret = primary._replication_secret
        primary.query(f"CREATE OR REPLACE USER '{_REPLICATION}'@'127.0.0.1' IDENTIFIED BY %s", (secret,))
        primary.query(f"GRANT REPLICATION SLAVE ON *.* TO '{_REPLICATION}'@'127.0.0.1'")
        position = primary.gtid()
        self.query(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s, "
            "MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_DELAY=%s",
            (primary.port, _REPLICATION, secret, delay_s))
        self.query("START SLAVE")
        try:
            wait.until(self._replicates, f"{self.name}: replicating", deadline)
            self.wait_for_gtid(position, deadline)
        except wait.Timeout as e:
            raise ProcessError(f"{e}\nSHOW SLAVE STATUS: {self.replication()}") from None

    def replication(self) -> Dict[str, Any]:
        """SHOW SLAVE STATUS; empty when it is no replica."""
        rows = self.query("SHOW SLAVE STATUS")
        return rows[0] if rows else {}

    def _replicates(self) -> bool:
        status = self.replication()
        return status.get("Slave_IO_Running") == "Yes" and status.get("Slave_SQL_Running") == "Yes"

    def gtid(self) -> str:
        """The position up to which it has written or applied changes."""
        return self.query("SELECT @@gtid_current_pos AS p")[0]["p"]

    def wait_for_gtid(self, position: str, deadline: float = wait.DEADLINE) -> None:
        """Waits until it has applied a position of its primary. Fails with wait.Timeout."""
        if self.query("SELECT MASTER_GTID_WAIT(%s, %s) AS r", (position, deadline))[0]["r"] != 0:
            raise wait.Timeout(f"{self.name}: has not reached position {position} within {deadline:g} s; it is at {self.gtid()}")
