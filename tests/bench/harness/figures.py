"""Medians and ratios. Runs of one round follow each other closely, so ratios are formed within a round, and then their median
is taken: what drifts from round to round (clocks, other virtual machines) drops out."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Callable, Dict, Iterable, List, Optional

Run = Dict[str, Any]  # what load.py returns


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float


def spread(values: List[float]) -> Optional[Spread]:
    return Spread(median(values), min(values), max(values)) if values else None


def of(runs: List[Run], figure: Callable[[Run], float]) -> Optional[Spread]:
    return spread([figure(r) for r in runs])


def ratio(runs: List[Run], baseline: List[Run], figure: Callable[[Run], float]) -> Optional[Spread]:
    """Round by round."""
    return spread([figure(a) / figure(b) for a, b in zip(runs, baseline) if figure(b) > 0])


def difference(runs: List[Run], baseline: List[Run], figure: Callable[[Run], float]) -> Optional[Spread]:
    return spread([figure(a) - figure(b) for a, b in zip(runs, baseline)])


# ---- figures of one run

def rps(run: Run) -> float:
    return run["rps"]


def keys_per_s(run: Run) -> float:
    return run["keys_per_s"]


def cpu(run: Run) -> float:
    """CPU seconds of the proxy per million requests, which is µs per request."""
    return run["watched_cpu"]["total_s"] / run["requests"] * 1e6


def cpu_user(run: Run) -> float:
    return run["watched_cpu"]["user_s"] / run["requests"] * 1e6


def cpu_system(run: Run) -> float:
    return run["watched_cpu"]["system_s"] / run["requests"] * 1e6


def proxy_busy(run: Run) -> float:
    """Share of its processor that the proxy used. Well below 1: something else was the bottleneck."""
    return run["watched_cpu"]["total_s"] / run["seconds"]


def load_busy(run: Run) -> float:
    """Processor time of the generator and the nodes per second: where they share a processor, its use."""
    return (run["load_cpu"]["total_s"] + run["nodes_cpu_s"]) / run["seconds"]


def disturbance(run: Run) -> float:
    """CPU time that others took on our processors, or the hypervisor, per second of the run."""
    return (run["others_cpu_s"] + run["stolen_s"]) / run["seconds"]


def disturbed(runs: Iterable[Run], limit: float) -> str:
    """As in "3 of 20"; nothing when there were none."""
    runs = list(runs)
    count = sum(disturbance(run) > limit for run in runs)
    return f"{count} of {len(runs)}" if count else ""


def latency(name: str) -> Callable[[Run], float]:
    return lambda run: run["latency_us"][name]
