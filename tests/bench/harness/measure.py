"""Rounds of runs, alternating between the peers."""

import sys
import time
from dataclasses import dataclass
from contextlib import ExitStack
from typing import Any, Dict, List

from . import figures, machine
from .load import Load
from .servers import Nodes, Servers, Target
from .workloads import Workload


@dataclass(frozen=True)
class Plan:
    rounds: int
    open_rounds: int
    duration: float
    warm_up: float
    idle_connections: int
    rate_share: float = 0.5  # open loop: of the slowest proxy's throughput
    max_disturbance: float = 0.1  # of a processor; a run with more is repeated
    repeats: int = 2


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _order(targets: List[Target], round_number: int) -> List[Target]:
    """Who goes first changes from round to round, and so does who follows whom."""
    shift = round_number % len(targets)
    order = targets[shift:] + targets[:shift]
    return order if round_number // len(targets) % 2 == 0 else order[::-1]


class Measurement:
    def __init__(self, servers: Servers, load: Load, plan: Plan, wanted: List[str]):
        self._servers = servers
        self._load = load
        self._plan = plan
        self._wanted = wanted

    # ---- speed

    def workload(self, workload: Workload) -> Dict[str, Any]:
        """closed and open: peer to one run a round. Fails with LoadError when a peer does not answer as it should."""
        with self._servers.nodes(workload.node) as nodes:
            self._load.preload(nodes)
            with self._servers.peers(workload, nodes, self._wanted) as targets:
                result: Dict[str, Any] = {"name": workload.name, "node": workload.node, "rate": 0,
                                          "closed": {}, "open": {t.name: [] for t in targets}}
                for target in targets:
                    self._load.check(workload, target)
                if targets and not workload.rate:
                    result["closed"] = {t.name: [] for t in targets}
                    self._closed(workload, targets, nodes, result)
                if targets:
                    self._open(workload, targets, nodes, result)
                return result

    def _closed(self, workload: Workload, targets: List[Target], nodes: Nodes, result: Dict[str, Any]) -> None:
        for i in range(self._plan.rounds):
            for target in _order(targets, i):
                run = self._undisturbed(workload, target, nodes, i)
                result["closed"][target.name].append(run)
                say(f"{workload.name:20} round {i + 1}/{self._plan.rounds} {target.name:14} {run['rps']:10,.0f} requests/s "
                    f"{figures.cpu(run):8.2f} µs CPU a request  p50 {run['latency_us']['p50']:,.0f} µs"
                    f"  others {figures.disturbance(run):4.0%}")

    def _open(self, workload: Workload, targets: List[Target], nodes: Nodes, result: Dict[str, Any]) -> None:
        rate = result["rate"] = workload.rate or self._open_rate(targets, result)
        for i in range(self._plan.open_rounds):
            for target in _order(targets, i):
                run = self._undisturbed(workload, target, nodes, i, rate)
                result["open"][target.name].append(run)
                late = run["latency_us"]
                say(f"{workload.name:20} at {rate:,.0f}/s {i + 1}/{self._plan.open_rounds} {target.name:14} p50 {late['p50']:,.0f}"
                    f"  p99 {late['p99']:,.0f}  p99.9 {late['p99.9']:,.0f} µs  others {figures.disturbance(run):4.0%}")

    def _open_rate(self, targets: List[Target], result: Dict[str, Any]) -> float:
        names = [t.name for t in targets if t.is_proxy] or [t.name for t in targets]
        slowest = min(figures.of(result["closed"][name], figures.rps).median for name in names)
        return float(f"{slowest * self._plan.rate_share:.2g}")

    def _undisturbed(self, workload: Workload, target: Target, nodes: Nodes, round_number: int, rate: float = 0) -> Dict[str, Any]:
        """The first run in which others leave our processors alone, or the quietest of all tries."""
        runs: List[Dict[str, Any]] = []
        for _ in range(1 + self._plan.repeats):
            runs.append(self._load.run(workload, target, nodes, duration=self._plan.duration, warm_up=self._plan.warm_up,
                                       rate=rate, seed=round_number + 1))
            if figures.disturbance(runs[-1]) <= self._plan.max_disturbance:
                break
        best = min(runs, key=figures.disturbance)
        return {**best, "tries": len(runs)}

    # ---- memory

    def memory(self) -> Dict[str, Any]:
        """Of each proxy: KiB per 1,000 idle connections, fresh ones and ones that have been used once."""
        result: Dict[str, Any] = {"connections": self._plan.idle_connections, "peers": {}}
        with self._servers.nodes("fast") as nodes:
            for name in ("twemproxy", "outrigger"):
                if name in self._wanted and self._servers.has(name):
                    result["peers"][name] = {kind: self._idle(name, nodes, kind == "used") for kind in ("fresh", "used")}
                    say(f"{'memory':20} {name:10} {result['peers'][name]}")
        return result

    def _idle(self, name: str, nodes: Nodes, is_used: bool) -> Dict[str, float]:
        count = self._plan.idle_connections
        with ExitStack() as stack:
            target = getattr(self._servers, name)(stack, nodes)
            # What a process allocates with its first requests is no connection's memory.
            self._load.run(Workload("memory", "", 50, 16), target, nodes, duration=0.3, warm_up=0.1)
            time.sleep(0.3)
            before = machine.rss_kib(target.pid)
            with self._load.idle(target, count, is_used):
                time.sleep(0.5)
                after = machine.rss_kib(target.pid)
            return {"before_kib": before, "after_kib": after, "kib_per_1000": (after - before) * 1000 / count}
