"""One run of the load generator (tests/bench/load.c)."""

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List

from . import machine, workloads
from .machine import Cpus
from .servers import Nodes, Target
from .workloads import Workload


class LoadError(Exception):
    """It saw something else than what it asked for; the text is what it said."""


@dataclass(frozen=True)
class Load:
    program: Path
    cpus: Cpus

    def _argv(self, address: str, prefix: str, *more: object) -> List[str]:
        return ["taskset", "-c", str(self.cpus.load), str(self.program), address, "--keys", str(workloads.KEYS), "--key-size",
                str(workloads.KEY_SIZE), "--value-size", str(workloads.VALUE_SIZE), "--prefix", prefix, *map(str, more)]

    def preload(self, nodes: Nodes) -> None:
        """Stores every key in every node, so that each is a hit wherever a proxy looks for it."""
        for address in nodes.addresses:
            for prefix in nodes.prefixes:
                _run(self._argv(address, prefix, "--preload", "--duration", 0), f"storing keys in {address}")

    def run(self, workload: Workload, target: Target, nodes: Nodes, *, duration: float, warm_up: float, rate: float = 0,
            seed: int = 1) -> Dict[str, Any]:
        """Closed loop, or open loop when there is a rate. What it printed, and what the machine did meanwhile."""
        argv = self._argv(target.address, target.prefix, "--connections", workload.connections, "--pipeline", workload.pipeline,
                          "--multi-get", workload.multi_get, "--set-ratio", workload.set_ratio, "--duration", duration,
                          "--warm-up", warm_up, "--watch-pid", target.pid, "--seed", seed)
        if rate:
            argv += ["--rate", str(rate)]
        proxy = {target.pid} - set(nodes.pids)
        cpus = {self.cpus.proxy, self.cpus.load, self.cpus.nodes}
        before, nodes_before, proxy_before = machine.busy(cpus), machine.cpu_seconds(nodes.pids), machine.cpu_seconds(proxy)
        result = json.loads(_run(argv, f"{workload.name} through {target.name}"))
        after, nodes_used = machine.busy(cpus), machine.cpu_seconds(nodes.pids) - nodes_before
        # These cover the warm-up too, but the generator's own figure does not, and it has ended.
        with_warm_up = 1 + warm_up / duration
        ours = nodes_used + machine.cpu_seconds(proxy) - proxy_before + result["load_cpu"]["total_s"] * with_warm_up
        result["nodes_cpu_s"] = nodes_used / with_warm_up
        result["others_cpu_s"] = max(0.0, after.used - before.used - ours)
        result["stolen_s"] = after.stolen - before.stolen
        return result

    @contextmanager
    def idle(self, target: Target, count: int, is_used: bool) -> Iterator[None]:
        """Holds so many idle connections; is_used: each has had one GET answered."""
        argv = self._argv(target.address, target.prefix, "--idle-used" if is_used else "--idle", count)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            if process.stdout.readline().strip() != "ready":
                raise LoadError(f"{count} idle connections through {target.name}: {process.stderr.read().strip()}")
            yield
            process.stdin.close()


def _run(argv: List[str], what: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"{what}: {done.stderr.strip()} (exit status {done.returncode} of: {' '.join(argv)})")
    return done.stdout
