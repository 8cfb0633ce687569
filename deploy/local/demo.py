"""The demo, once everything is installed and built: run by deploy/demo."""

import argparse
import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import List, Optional

from . import catalogue, paths, schema, signals
from .cluster import Cluster
from .console import Console
from .mariadb import MariaDB
from .process import Process, ProcessError
from .walk import NAMESPACES, Walk
from .walk_strong import STRONG

DIRECTORY = paths.BUILD / "demo"
REGIONS = ("east", "west", "north", "south", "centre")


class RunDirectory:
    """build/demo/run-PID: everything that one run of the demo writes, but for the kept catalogue. Locked while it is in
    use, so that what a killed run has left is told apart, and removed by the next one."""

    def __init__(self) -> None:
        self.path = DIRECTORY / f"run-{os.getpid()}"

    def __enter__(self) -> Path:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        for other in DIRECTORY.glob("run-*"):
            self._remove_if_left(other)
        self.path.mkdir()
        self._lock = open(self.path / ".lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self.path

    @staticmethod
    def _remove_if_left(other: Path) -> None:
        try:
            with open(other / ".lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # in use
        except OSError:
            pass
        shutil.rmtree(other, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def keep_logs(cluster: Cluster, console: Console) -> None:
    """Saves the logs of all processes from being removed with the run's directory."""
    kept = DIRECTORY / "logs-of-last-failure"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for process in cluster.processes():
        if process.log.exists():
            shutil.copyfile(process.log, kept / f"{process.name}.log")
    console.note(f"The logs of all processes are kept in {kept}")


def load_catalogue(console: Console) -> catalogue.Catalogue:
    bars: list = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(console.bar("loading it into MariaDB", total))
        bars[0].update(done)

    console.heading("This machine's Debian package catalogue (apt-cache dumpavail)")
    result = catalogue.prepare(DIRECTORY, progress)
    for bar in bars:
        bar.finish()
    console.ok(f"{result.rows:,} packages, one row each", None,
               "as loaded by an earlier start; the catalogue is unchanged" if result.was_kept else "loaded")
    return result


def prepare(primary: MariaDB) -> None:
    """The built-in table, which the strong namespace writes to."""
    schema.create(primary, catalogue.SCHEMA)


def start(cluster: Cluster, console: Console) -> None:
    console.heading("Starting, on 127.0.0.1")
    with console.timed("MariaDB primary and replica; NATS, memcached") as detail:
        cluster.start_servers()
        status = cluster.replica.replication()
        detail.append(f"replica: IO {status['Slave_IO_Running']}, SQL {status['Slave_SQL_Running']}, "
                      f"GTID {cluster.replica.gtid()}")
    with console.timed(f"outrigger in {', '.join(cluster.regions)}") as detail:
        cluster.start_outriggers()
        detail.append("/readyz: 200, leases of the strong namespace included")


def _send(command: str, target: str) -> str:
    text = f"printf '{command}\\r\\nquit\\r\\n'"
    if shutil.which("nc"):
        return f"{text} | nc {target}"
    host_port = target.replace(" ", "/")
    return f"bash -c \"exec 3<>/dev/tcp/{host_port}; {text} >&3; cat <&3\""


def show_endpoints(cluster: Cluster, console: Console) -> None:
    console.heading("Endpoints")
    for region in cluster.regions.values():
        sidecar = region.outrigger
        console.note(f"{region.name:<8} memcached    {sidecar.address}")
        if sidecar.socket:
            console.note(f"{'':<8} unix socket  {sidecar.socket}")
        console.note(f"{'':<8} admin        {sidecar.admin_url}/metrics, /readyz, /healthz")
        console.note(f"{'':<8} config, log  {sidecar.config_file}, {sidecar.process.log.name}")
        console.note(f"{'':<8} nodes        {', '.join(n.address for n in region.nodes)}")
        console.note(f"{'':<8} NATS         {region.nats.url}")
    console.note(f"MariaDB  primary      {cluster.primary.address}, user {cluster.user}, password {cluster.password}, "
                 f"schema {cluster.schema}")
    console.note(f"         replica      {cluster.replica.address}")
    console.heading("To try")
    west, east = cluster["west"].outrigger, cluster["east"].outrigger
    mariadb = f"mariadb -h 127.0.0.1 -P {cluster.primary.port} -u {cluster.user} -p{cluster.password} {cluster.schema}"
    for text in (
            _send("get package:bash", f"127.0.0.1 {west.port}"),
            f"{mariadb} -e \"UPDATE packages SET description = 'mine' WHERE name = 'bash'\"",
            _send("delete package:bash", f"127.0.0.1 {east.port}"),
            _send("get package:bash", f"127.0.0.1 {west.port}"),
            _send("stats", f"127.0.0.1 {west.port}"),
            f"curl -s {west.admin_url}/metrics | grep namespace=.package"):
        console.note(text)


def wait_for_the_end(cluster: Cluster, console: Console) -> None:
    """Returns only by signals.Ended. Tells of every child that dies meanwhile."""
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
        except ChildProcessError:
            signal.pause()
            continue
        found: Optional[Process] = next((p for p in cluster.processes() if p.pid == dead), None)
        if found is None:
            os.waitpid(dead, 0)
        elif found.returncode is not None:
            console.bad(f"{found.name} has died", found.describe_end())


def present(cluster: Cluster, once: bool, console: Console) -> None:
    """Starts, walks and, unless `once`, stays up until a signal ends us. Fails with ProcessError if it could not start."""
    start(cluster, console)
    walk = Walk(cluster, console)
    try:
        walk.run()
    finally:
        walk.close()
    console.line()
    console.note(f"{console.failures} of the steps showed something wrong." if console.failures else "Every step was right.")
    if not once:
        show_endpoints(cluster, console)
        console.line("\nUp until Ctrl-C.")
        try:
            wait_for_the_end(cluster, console)
        except signals.Ended:
            console.line("\nEnding.")


def run(once: bool, count: int, console: Console) -> int:
    """The whole demo; its exit status."""
    with RunDirectory() as path:
        names = REGIONS[:count]
        spools = {name: {"bus": {"spool": {"directory": str(path / name / "spool")}}} for name in names}
        cluster = Cluster(path, names, nodes=2, replica=True, template=load_catalogue(console).template,
                          schema=catalogue.SCHEMA, prepare=prepare, witness=count == 2,
                          config={"namespaces": NAMESPACES, "strong": STRONG}, region_config=spools)
        try:
            present(cluster, once, console)
        except ProcessError as e:
            console.bad("could not be started", str(e))
        finally:
            cluster.close()
            if console.failures:
                keep_logs(cluster, console)
    return 1 if console.failures else 0


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="deploy/demo")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--regions", type=int, choices=range(2, len(REGIONS) + 1), default=2)
    options = parser.parse_args(arguments)
    console = Console()
    try:
        with signals.as_exceptions():
            return run(options.once, options.regions, console)
    except ProcessError as e:
        console.bad("could not be started", str(e))
        return 1
    except signals.Ended as e:
        return 128 + e.number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
