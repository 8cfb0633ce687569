"""The nodes and the peers of one workload, each pinned to its processor."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

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
    protocol: str = "classic"
    beside_large: bool = False  # while another client moves large values

    @property
    def is_proxy(self) -> bool:
        return not self.name.startswith("direct")


@dataclass
class Nodes:
    addresses: List[str]  # of the pool
    pids: List[int]
    stored: List[str]  # addresses of those in which the keys have to be stored first
    direct: str  # the address without a proxy, and its process
    direct_pid: int
    prefixes: Tuple[str, ...] = ("bench:",)  # of the keys to be stored
    has_large: bool = False  # large values too


def _pin(process: Process, cpu: int) -> None:
    process.argv[:0] = ["taskset", "-c", str(cpu)]


def _start(stack: ExitStack, process: Process, cpu: int, port: int) -> Process:
    _pin(process, cpu)
    stack.callback(process.close, 5.0)
    process.start()
    process.wait_for_port(port)
    return process


def _variants(prefix: str, target: Target) -> Dict[str, Target]:
    """The same server by protocol, and with and without large values beside."""
    targets = [*(replace(target, name=prefix + protocol, protocol=protocol) for protocol in ("classic", "meta", "binary")),
               replace(target, name=prefix + "alone"), replace(target, name=prefix + "beside", beside_large=True)]
    return {t.name: t for t in targets}


class Servers:
    """Starts what a workload needs. Every process ends with the `with` that it was started in."""

    def __init__(self, programs: Programs, cpus: Cpus, directory: Path):
        self._programs = programs
        self._cpus = cpus
        self._directory = directory

    # ---- nodes

    @contextmanager
    def nodes(self, kind: str) -> Iterator[Nodes]:
        """Two nodes, of one scripted process or two memcacheds; `both`: scripted ones, and one memcached beside the pool."""
        with ExitStack() as stack:
            if kind == "fast":
                yield self._fast_nodes(stack)
            elif kind == "both":
                fast, real = self._fast_nodes(stack), self._memcached(stack, "memcached")
                yield replace(fast, pids=[*fast.pids, real.process.pid], stored=[real.address], direct=real.address,
                              direct_pid=real.process.pid)
            elif kind == "large":
                yield replace(self._memcached_nodes(stack, "-I", workloads.LARGE_SIZE * 2), has_large=True)
            else:
                yield replace(self._memcached_nodes(stack), prefixes=("bench:", "through:"))

    def _fast_nodes(self, stack: ExitStack) -> Nodes:
        numbers = [ports.pick(), ports.pick()]
        addresses = [f"127.0.0.1:{n}" for n in numbers]
        process = Process("fastnode", [self._programs.fastnode, "--value-size", workloads.VALUE_SIZE, *addresses],
                          self._directory / "fastnode.log")
        _start(stack, process, self._cpus.nodes, numbers[0])
        return Nodes(addresses, [process.pid], [], addresses[0], process.pid)

    def _memcached(self, stack: ExitStack, name: str, *arguments: object) -> Memcached:
        node = Memcached(self._directory, name=name, threads=1, memory_mb=512, arguments=arguments, binary=self._programs.memcached)
        _pin(node.process, self._cpus.nodes)
        stack.callback(node.close)
        return node.start()

    def _memcached_nodes(self, stack: ExitStack, *arguments: object) -> Nodes:
        nodes = [self._memcached(stack, f"memcached{i}", *arguments) for i in (1, 2)]
        addresses = [n.address for n in nodes]
        return Nodes(addresses, [n.process.pid for n in nodes], addresses, addresses[0], nodes[0].process.pid)

    # ---- peers

    @contextmanager
    def peers(self, workload: Workload, nodes: Nodes, wanted: List[str]) -> Iterator[List[Target]]:
        """Those of the workload's peers that are wanted and can be had, in the workload's order."""
        with ExitStack() as stack:
            targets: Dict[str, Target] = {}
            if "direct" in wanted:
                direct = Target("direct", nodes.direct, nodes.direct_pid)
                targets.update({"direct": direct, **_variants("direct-", direct)})
            if "twemproxy" in workload.peers and "twemproxy" in wanted and self._programs.twemproxy:
                targets["twemproxy"] = self.twemproxy(stack, nodes)
            if "outrigger" in wanted and self._programs.outrigger:
                one = self.outrigger(stack, nodes, has_through=workload.peers == workloads.NAMESPACES)
                targets.update({"outrigger": one, "aside": replace(one, name="aside"),
                                "through": replace(one, name="through", prefix="through:"), **_variants("", one)})
            yield [targets[name] for name in workload.peers if name in targets]

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
        if nodes.has_large:
            config["max_value_size"] = f"{workloads.LARGE_SIZE * 2 >> 20}MiB"
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
