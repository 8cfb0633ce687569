"""One region: a nats-server, memcached nodes, and the sidecars in front of them."""

import copy
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from .mariadb import MariaDB
from .memcached import Memcached
from .nats import Nats
from .outrigger import Outrigger
from .parallel import in_parallel
from .process import Process


def merged(base: Mapping[str, Any], changes: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """A configuration with changes: dictionaries are merged, anything else is replaced, None removes."""
    result = copy.deepcopy(dict(base))
    for key, value in (changes or {}).items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def database_config(primary: MariaDB, schema: str, user: str, password_file: Path) -> Dict[str, Any]:
    """The section `database` of a sidecar's configuration."""
    return {"primary": primary.address, "schema": schema, "user": user, "password_file": str(password_file.resolve())}


class Region:
    """The servers of one region, with their files in `directory`. They have their ports from the start, so that regions can
    be told of each other before any of them runs.

    nats: False for a region without a bus. nats_host: where its NATS listens, if the region is in a network namespace of its own.
    """

    def __init__(self, name: str, directory: Path, *, nodes: int = 2, memory_mb: int = 64, nats: bool = True,
                 nats_host: str = "127.0.0.1"):
        self.name = name
        self.directory = Path(directory)
        self.nats: Optional[Nats] = Nats(self.directory / "nats", name=f"{name}-nats", host=nats_host) if nats else None
        self.nodes: List[Memcached] = [
            Memcached(self.directory, name=f"{name}-memcached-{i + 1}", memory_mb=memory_mb) for i in range(nodes)]
        self.outriggers: List[Outrigger] = []

    @property
    def outrigger(self) -> Outrigger:
        """The first, or only, sidecar."""
        return self.outriggers[0]

    def config(self, peers: Iterable["Region"] = (), database: Optional[Mapping[str, Any]] = None,
               changes: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
        """A sidecar's configuration for this region, but for `listen` and `admin`, which Outrigger adds."""
        config: Dict[str, Any] = {"region": self.name, "threads": 2, "pool": {"nodes": [n.address for n in self.nodes]}}
        if database:
            config["database"] = dict(database)
        if self.nats:
            config["bus"] = {"url": self.nats.url,
                             "peers": [{"region": p.name, "url": p.nats.url} for p in peers if p is not self and p.nats]}
        return merged(config, changes)

    def add_outrigger(self, config: Mapping[str, Any], **options: Any) -> Outrigger:
        """One more sidecar, which is not started; options are Outrigger's."""
        options.setdefault("name", f"{self.name}-outrigger" + (f"-{len(self.outriggers) + 1}" if self.outriggers else ""))
        self.outriggers.append(Outrigger(self.directory, config, **options))
        return self.outriggers[-1]

    def start_servers(self) -> None:
        """Starts everything but the sidecars. Fails with ProcessError; what has been started then still runs."""
        in_parallel([server.start for server in self._servers()], self.close)

    def start(self, until: Optional[str] = "ready") -> "Region":
        """Starts everything; `until` is Outrigger.start()'s."""
        self.start_servers()
        in_parallel([lambda o=o: o.start(until) for o in self.outriggers], self.close)
        return self

    def _servers(self) -> list:
        return ([self.nats] if self.nats else []) + self.nodes

    def processes(self) -> List[Process]:
        """In the order in which they are started."""
        return [server.process for server in self._servers() + self.outriggers]

    def close(self) -> None:
        """Ends everything for good, the sidecars first."""
        in_parallel([outrigger.close for outrigger in self.outriggers])
        for server in reversed(self._servers()):
            server.close()

    def __enter__(self) -> "Region":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
