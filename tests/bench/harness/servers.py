"""The nodes and the peers of one workload, each pinned to its processor."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional

from local import ports
from local.memcached import Memcached
from local.outrigger import Outrigger
from local.process import Process

from . import workloads
from .machine import Cpus
from .workloads import Workload


@dataclass(frozen=True)
class Programs:
    """Paths of what is run. A peer without one can not take part."""
    load: Path
    fastnode: Path
    memcached: Path
    twemproxy: Optional[Path]
    outrigger: Optional[Path]


@dataclass(frozen=True)
class Target:
    """Where one peer is to be reached, and the process whose CPU time counts: for `direct`, the node's."""
    name: str
    address: str
    pid: int
    prefix: str = "bench:"


@dataclass
class Nodes:
    addresses: List[str]
    pids: List[int]
    prefixes: List[str]  # the key prefixes that have to be stored first


def _pin(process: Process, cpu: int) -> None:
    process.argv[:0] = ["taskset", "-c", str(cpu)]


def _start(stack: ExitStack, process: Process, cpu: int, port: int) -> Process:
    _pin(process, cpu)
    stack.callback(process.close, 5.0)
    process.start()
    process.wait_for_port(port)
    return process


class Servers:
    """Starts what a workload needs. Every process ends with the `with` that it was started in."""

    def __init__(self, programs: Programs, cpus: Cpus, directory: Path):
        self._programs = programs
        self._cpus = cpus
        self._directory = directory

    # ---- nodes

    @contextmanager
    def nodes(self, kind: str) -> Iterator[Nodes]:
        """Two nodes: of one scripted process, or two memcacheds."""
        with ExitStack() as stack:
            yield (self._fast_nodes if kind == "fast" else self._memcached_nodes)(stack)

    def _fast_nodes(self, stack: ExitStack) -> Nodes:
        numbers = [ports.pick(), ports.pick()]
        addresses = [f"127.0.0.1:{n}" for n in numbers]
        process = Process("fastnode", [self._programs.fastnode, "--value-size", workloads.VALUE_SIZE, *addresses],
                          self._directory / "fastnode.log")
        _start(stack, process, self._cpus.nodes, numbers[0])
        return Nodes(addresses, [process.pid], [])

    def _memcached_nodes(self, stack: ExitStack) -> Nodes:
        nodes = [Memcached(self._directory, name=f"memcached{i}", threads=1, memory_mb=256, binary=self._programs.memcached)
                 for i in (1, 2)]
        for node in nodes:
            _pin(node.process, self._cpus.nodes)
            stack.callback(node.close)
            node.start()
        return Nodes([n.address for n in nodes], [n.process.pid for n in nodes], ["bench:", "through:"])

    # ---- peers

    @contextmanager
    def peers(self, workload: Workload, nodes: Nodes, wanted: List[str]) -> Iterator[List[Target]]:
        """Those of the workload's peers that are wanted and can be had, in the workload's order."""
        with ExitStack() as stack:
            targets: Dict[str, Target] = {}
            if "direct" in workload.peers:
                targets["direct"] = Target("direct", nodes.addresses[0], nodes.pids[0])
            if "twemproxy" in workload.peers and "twemproxy" in wanted and self._programs.twemproxy:
                targets["twemproxy"] = self.twemproxy(stack, nodes)
            if "outrigger" in workload.peers and "outrigger" in wanted and self._programs.outrigger:
                targets["outrigger"] = self.outrigger(stack, nodes)
            if workload.peers == workloads.NAMESPACES and "outrigger" in wanted and self._programs.outrigger:
                one = self.outrigger(stack, nodes, has_through=True)
                targets["aside"] = Target("aside", one.address, one.pid)
                targets["through"] = Target("through", one.address, one.pid, prefix="through:")
            yield [targets[name] for name in workload.peers if name in targets and (name in wanted or name != "direct")]

    def twemproxy(self, stack: ExitStack, nodes: Nodes) -> Target:
        port = ports.pick()
        config = self._directory / "twemproxy.yml"
        config.write_text("".join([
            "bench:\n", f"  listen: 127.0.0.1:{port}\n",
            "  hash: md5\n", "  distribution: ketama\n",  # what Outrigger's ketama is
            "  preconnect: true\n", "  server_connections: 1\n", "  auto_eject_hosts: false\n", "  backlog: 1024\n",
            "  servers:\n", *(f"   - {address}:1\n" for address in nodes.addresses)]))
        process = Process("twemproxy", [
            self._programs.twemproxy, "-c", config, "-a", "127.0.0.1", "-s", ports.pick(),
            "-p", self._directory / "twemproxy.pid", "-o", self._directory / "twemproxy.log"], self._directory / "twemproxy.log")
        _start(stack, process, self._cpus.proxy, port)
        return Target("twemproxy", f"127.0.0.1:{port}", process.pid)

    def outrigger(self, stack: ExitStack, nodes: Nodes, has_through: bool = False) -> Target:
        port = ports.pick()
        config = {
            "region": "bench", "threads": 1, "listen": [f"127.0.0.1:{port}"],
            "pool": {"nodes": nodes.addresses, "connections": 1},
            "log": {"level": "warn"},
        }
        if has_through:  # nothing is ever loaded: every key is there
            config["namespaces"] = [{"prefix": "", "read": "aside"}, {
                "prefix": "through:", "read": "through",
                "source": {"table": "unused", "key_column": "name", "value_column": "value"}}]
            config["database"] = {"primary": "127.0.0.1:1", "schema": "unused", "user": "unused", "password": "unused"}
        one = Outrigger(self._directory, config, port=port, binary=self._programs.outrigger)
        one.write_config()
        _start(stack, one.process, self._cpus.proxy, port)
        return Target("outrigger", f"127.0.0.1:{port}", one.process.pid)

    def has(self, name: str) -> bool:
        return getattr(self._programs, name) is not None
