"""The whole: a primary database, its replica, and regions that know each other."""

import os
import secrets
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from . import signals
from .mariadb import MariaDB
from .nats import Nats
from .parallel import in_parallel
from .process import Process, ProcessError
from .region import Region, database_config, merged


class Cluster:
    """A primary (and a replica, if asked for), regions, and their sidecars, with all files in `directory`.

        with Cluster(tmp_path, config={"namespaces": [...]}, prepare=lambda db: db.query("CREATE TABLE ...")) as cluster:
            cluster["west"].outrigger.port

    regions, nodes, outriggers: their names; memcached nodes and sidecars in each.
    config:   changes to every sidecar's configuration; region_config: to those of one region, by its name.
    database: False for none. template: the data directory to start from. schema: made if it is not there; the sidecars'
              account, `user` with `password`, may do everything in it.
    prepare:  called with the primary before the sidecars are started.
    nats_hosts: where each region's NATS listens, by its name, if not on 127.0.0.1.
    witness:  also a NATS of its own that has a vote on the leases of strong namespaces.
    until:    how far the sidecars are waited for, as Outrigger.start() has it.
    Used as a context, it is started on the way in and closed on the way out, whatever the reason for leaving.
    """

    user = "outrigger"

    def __init__(self, directory: Path, regions: Sequence[str] = ("east", "west"), *, nodes: int = 2, outriggers: int = 1,
                 memory_mb: int = 64, database: bool = True, replica: bool = False, template: Optional[Path] = None,
                 schema: str = "outrigger", prepare: Optional[Callable[[MariaDB], object]] = None,
                 config: Optional[Mapping[str, Any]] = None,
                 region_config: Optional[Mapping[str, Mapping[str, Any]]] = None, binary: Optional[Path] = None,
                 env: Optional[Mapping[str, str]] = None, nats_hosts: Optional[Mapping[str, str]] = None, witness: bool = False,
                 until: Optional[str] = "ready"):
        self.directory = Path(directory)
        self.schema = schema
        self.password = secrets.token_hex(8)
        self.password_file = self.directory / "mysql-password"
        self.primary: Optional[MariaDB] = None
        self.replica: Optional[MariaDB] = None
        self._prepare = prepare
        self._until = until
        self._is_new = True
        if database:
            self.primary = MariaDB(self.directory / "primary", name="mariadb-primary", server_id=1, template=template)
        if database and replica:
            self.replica = MariaDB(self.directory / "replica", name="mariadb-replica", server_id=2, template=template,
                                   arguments=["--read-only=1"])
        self.regions: Dict[str, Region] = {
            name: Region(name, self.directory / name, nodes=nodes, memory_mb=memory_mb,
                         nats_host=(nats_hosts or {}).get(name, "127.0.0.1")) for name in regions}
        self.witness: Optional[Nats] = Nats(self.directory / "witness", name="witness-nats") if witness else None
        if self.witness:
            config = merged(config or {}, {"strong": {"witnesses": [{"name": "witness", "url": self.witness.url}]}})
        section = database_config(self.primary, schema, self.user, self.password_file) if self.primary else None
        for region in self.regions.values():
            changes = merged(config or {}, (region_config or {}).get(region.name))
            for _ in range(outriggers):
                region.add_outrigger(region.config(self.regions.values(), section, changes), binary=binary, env=env)

    def __getitem__(self, region: str) -> Region:
        return self.regions[region]

    # ---- life

    def start(self) -> "Cluster":
        """Starts everything, and (until "ready") waits until every region hears every other. Fails with ProcessError, and everything is closed then."""
        self.start_servers()
        self.start_outriggers()
        return self

    def start_servers(self) -> None:
        """The first part of start(): the databases, with replication, and the regions' servers."""
        self._is_new = not any(region.nats.store.exists() for region in self.regions.values())
        starts = [region.start_servers for region in self.regions.values()]
        if self.primary:
            starts.append(self._start_databases)
        if self.witness:
            starts.append(self.witness.start)
        in_parallel(starts, self.close)

    def start_outriggers(self) -> None:
        """The second part of start()."""
        dead: List[str] = []  # why a sidecar does not get ready may be that a server has died

        def give_up() -> None:
            dead.extend(process.describe_end() for process in self.processes() if process.is_expected and not process.is_running)
            self.close()
        try:
            in_parallel([lambda o=o: o.start(self._until) for region in self.regions.values() for o in region.outriggers], give_up)
            if self._until == "ready":
                in_parallel([lambda r=r: self._wait_for_peers(r) for r in self.regions.values()], give_up)
        except ProcessError as e:
            raise ProcessError("\n".join([str(e), *dead])) from None

    def _wait_for_peers(self, region: Region) -> None:
        """Until one of its sidecars receives the invalidations of each of its peers and, where the regions are new, has covered what went before by
        a rule `*`. A region is ready before that when a peer's stream is not there yet. The log says so, unless it is told to be silent."""
        if any(o.config.get("log", {}).get("level", "info") not in ("info", "debug") for o in region.outriggers):
            return
        for peer in {peer["region"] for o in region.outriggers for peer in (o.config.get("bus") or {}).get("peers", [])}:
            lines = [f"bus: receiving the invalidations of region {peer} "]
            if self._is_new:
                lines.append(f"bus: region {peer}: the gap is covered")
            region.outrigger.process.wait_until(
                lambda: all(any(line in o.process.log.read_text(errors="replace") for o in region.outriggers) for line in lines),
                f"{region.name} hears {peer}")
        for sidecar in region.outriggers:  # another relay may still be at it
            sidecar.wait()

    def _start_databases(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(self.password)
        in_parallel([db.start for db in (self.primary, self.replica) if db], self.close)
        self.primary.create_schema(self.schema, self.user, self.password)
        if self._prepare:
            self._prepare(self.primary)
        if self.replica:
            self.replica.replicate_from(self.primary)

    def processes(self) -> List[Process]:
        """All that are ours, in the order in which they are started."""
        databases = [db.process for db in (self.primary, self.replica) if db]
        return databases + ([self.witness.process] if self.witness else []) + [p for region in self.regions.values() for p in region.processes()]

    def close(self) -> None:
        """Ends everything for good, in the reverse order: sidecars, buses and nodes, replica, primary. May be called at any
        time, and twice. Signals that would end us wait meanwhile."""
        with signals.ignored():
            in_parallel([region.close for region in self.regions.values()])
            for server in (self.witness, self.replica, self.primary):
                if server:
                    server.close()

    def __enter__(self) -> "Cluster":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()
