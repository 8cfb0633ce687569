"""What issues 2 and 3 ask for, against what was measured."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from . import figures
from .figures import Run, Spread

Results = Dict[str, Dict[str, Any]]  # by workload

#: Ratios that have no target yet are only reported.
LIMITS: Dict[str, Optional[float]] = {"meta": None, "binary": None, "beside": None}


@dataclass(frozen=True)
class Verdict:
    what: str
    target: str
    measured: Optional[Spread]
    unit: str
    reached: Optional[bool]  # None: not measured, or no target is set


def _ratio(results: Results, workload: str, figure: Callable[[Run], float], peer: str = "outrigger",
           baseline: str = "twemproxy") -> Optional[Spread]:
    closed = results.get(workload, {}).get("closed", {})
    return figures.ratio(closed.get(peer, []), closed.get(baseline, []), figure)


def _at_most(what: str, limit: Optional[float], measured: Optional[Spread], unit: str = "×") -> Verdict:
    if limit is None:
        return Verdict(what, "–", measured, unit, None)
    return Verdict(what, f"≤ {limit:.2f} {unit}", measured, unit, measured.median <= limit if measured else None)


def _at_least(what: str, limit: float, measured: Optional[Spread], unit: str = "×") -> Verdict:
    return Verdict(what, f"≥ {limit:.2f} {unit}", measured, unit, measured.median >= limit if measured else None)


def _added_latency(results: Results) -> Verdict:
    closed = results.get("get-1x1", {}).get("closed", {})
    p50 = figures.latency("p50")
    ours, theirs = (figures.difference(closed.get(peer, []), closed.get("direct", []), p50) for peer in ("outrigger", "twemproxy"))
    both = ours is not None and theirs is not None
    return Verdict("median latency added at one connection", f"≤ twemproxy's {theirs.median:.1f} µs" if both else "≤ twemproxy's",
                   ours if both else None, "µs", ours.median <= theirs.median if both else None)


def _by_protocol(results: Results) -> List[Verdict]:
    return [_at_most(f"CPU per request, {protocol} against classic, {title}", LIMITS[protocol],
                     _ratio(results, workload, figures.cpu, protocol, "classic"))
            for protocol in ("meta", "binary")
            for workload, title in (("protocol-50x1", "50 connections"), ("protocol-50x16", "pipelines of 16"))]


def _beside_large(results: Results) -> Verdict:
    runs = results.get("beside-large", {}).get("open", {})
    return _at_most("p99 of small GETs beside a client with 8 MiB values, against alone", LIMITS["beside"],
                    figures.ratio(runs.get("beside", []), runs.get("alone", []), figures.latency("p99")))


def verdicts(results: Results) -> List[Verdict]:
    def cpu(workload: str) -> Optional[Spread]:
        return _ratio(results, workload, figures.cpu)

    def through(workload: str, figure: Callable[[Run], float]) -> Optional[Spread]:
        return _ratio(results, workload, figure, "through", "aside")

    return [
        _at_most("CPU per request, 50 connections, one request in flight each", 0.85, cpu("get-50x1")),
        _at_most("CPU per request, 500 connections", 0.60, cpu("get-500x1")),
        _at_most("CPU per request, 50 connections, pipelines of 16", 0.35, cpu("get-50x16")),
        _at_least("throughput, 50 connections, pipelines of 16", 2.5, _ratio(results, "get-50x16", figures.rps)),
        _at_most("CPU per request, multi-get of 100", 0.40, cpu("mget100-50x1")),
        _at_most("CPU per request, through against aside, 50 connections", 1.10, through("through-50x1", figures.cpu)),
        _at_least("throughput, through against aside, 50 connections", 0.90, through("through-50x1", figures.rps)),
        _at_most("CPU per request, through against aside, pipelines of 16", 1.10, through("through-50x16", figures.cpu)),
        _at_least("throughput, through against aside, pipelines of 16", 0.90, through("through-50x16", figures.rps)),
        _added_latency(results),
        *_by_protocol(results),
        _beside_large(results),
    ]
