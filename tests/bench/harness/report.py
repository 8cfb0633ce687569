"""The results as Markdown, for docs/performance.md."""

from typing import Any, Callable, Dict, List, Optional, Tuple

from . import figures, targets, workloads
from .figures import Spread
from .measure import Plan
from .workloads import BESIDE_LARGE, BY_PROTOCOL, WORKLOADS, Workload

_DASH = "–"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _spread(s: Optional[Spread], digits: int = 2) -> str:
    if s is None:
        return _DASH
    if s.low == s.high:
        return _number(s.median, digits)
    return f"{_number(s.median, digits)} ({_number(s.low, digits)}–{_number(s.high, digits)})"


def _median(s: Optional[Spread], digits: int = 2) -> str:
    return _DASH if s is None else _number(s.median, digits)


def _share(runs: List[figures.Run], figure: Callable[[figures.Run], float]) -> str:
    return f"{figures.of(runs, figure).median:.0%}" if runs else _DASH


def _table(head: List[str], rows: List[List[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _title(w: Workload) -> str:
    return f"{w.title}, {w.shape}" + (", real memcached" if w.node == "memcached" else "")


def _measured(data: Dict[str, Any], *without: Tuple[str, ...]) -> List[Workload]:
    """without: sets of peers that have a table of their own."""
    return [w for w in WORKLOADS if w.name in data["workloads"] and w.peers not in without]


def all_runs(data: Dict[str, Any]) -> List[figures.Run]:
    """Of the closed loop, from which ratios are formed."""
    return [run for w in data["workloads"].values() for runs in w["closed"].values() for run in runs]


def _machine(data: Dict[str, Any]) -> str:
    names = {"processor": "Processor", "memory": "Memory", "kernel": "Kernel", "system": "System", "outrigger": "Outrigger",
             "twemproxy": "twemproxy", "memcached": "memcached", "compiler": "Compiler", "date": "Date"}
    rows = [[names.get(key, key), value] for key, value in data["machine"].items()]
    worst = [figures.disturbance(run) for run in all_runs(data)]
    if worst:
        share = figures.spread(worst)
        rows.append(["CPU taken by other processes or the hypervisor during a run",
                     f"{share.median:.1%} of a core, at worst {share.high:.1%}"])
    return _table(["", ""], rows).replace("---: |", "--- |")


def _how(data: Dict[str, Any], plan: Plan) -> str:
    cpus = data["cpus"]
    shared = f"the load generator and the nodes share processor {cpus['load']}" if cpus["load"] == cpus["nodes"] else \
        f"the load generator has processor {cpus['load']}, the nodes have {cpus['nodes']}"
    return f"""\
* Each proxy has one worker, pinned to processor {cpus['proxy']}; {shared}. Everything is on loopback.
* {workloads.KEYS:,} keys of {workloads.KEY_SIZE} B, values of {workloads.VALUE_SIZE:,} B, chosen uniformly. "50 × 16" is 50 connections with 16
  requests in flight on each.
* The pool has two nodes, with one connection of the proxy to each, and ketama with MD5 in both proxies. twemproxy has its default buffers, `preconnect`,
  no ejection and no timeout; Outrigger has its defaults, deadlines included.
* **Which node:** the *scripted node* (`tests/bench/fastnode.c`: every key is a hit with the same value) stands in for memcached, for every
  peer alike, wherever the table does not say "real memcached": on two processors memcached, sharing one with the load generator, would be
  what is measured, not the proxy. The rows with real memcached (one thread each) are there to show how far that holds, and because a
  `through` namespace needs a real one.
* Throughput and CPU come from a closed loop (every connection keeps its pipeline full), {plan.rounds} rounds of {plan.duration:g} s after {plan.warm_up:g} s
  of warm-up; the peers alternate, and their order changes from round to round. Figures are medians, with the lowest and highest round in
  brackets. A ratio is formed within each round, and then the median taken.
* CPU is that of the proxy's process alone, all threads, from the kernel's accounting (`/proc/PID/task/*/schedstat`; user and system by `/proc/PID/stat`):
  seconds per million requests, which is µs per request. With loopback, delivering to the receiver is charged to whoever sends.
* Latency comes from an open loop at a fixed rate, the same for all peers: {plan.rate_share:.0%} of the slowest proxy's closed-loop throughput, with Poisson arrivals. It
  counts from when a request was due, so a stall is charged for everything it held up (no coordinated omission).
* "Proxy busy" is the share of its processor that the proxy used in the closed loop, "others busy" that of the load generator and the nodes
  together. Where the proxy is well below 100 % and the others are near it, they were the bottleneck: the throughput is a lower bound
  of what the proxy can do, and its CPU per request says more.
* A run during which other processes or the hypervisor took more than {plan.max_disturbance:.0%} of a processor from these is repeated, at most {plan.repeats} times, and the
  quietest taken, whatever it measured.
"""


def _must_reach(data: Dict[str, Any], plan: Plan) -> str:
    rows = []
    disturbed = figures.disturbed(all_runs(data), plan.max_disturbance)
    warning = f"**{disturbed} runs were disturbed by other processes, even after repetition.**\n\n" if disturbed else ""
    for v in targets.verdicts(data["workloads"]):
        reached = "not measured" if v.measured is None else _DASH if v.reached is None else "yes" if v.reached else "**no**"
        rows.append([v.what, v.target, _spread(v.measured, 3 if v.unit == "×" else 1) + (f" {v.unit}" if v.measured else ""), reached])
    # The command line behind the message has paths of this machine.
    warning += "".join(f"**Failed:** {message.split(' (exit status')[0]}\n\n" for message in data.get("failed", {}).values())
    return warning + _table(["", "target", "measured", "reached"], rows)


def _throughput(data: Dict[str, Any]) -> str:
    rows = []
    for w in _measured(data, BY_PROTOCOL, BESIDE_LARGE):
        closed = data["workloads"][w.name]["closed"]
        figure = figures.keys_per_s if w.multi_get > 1 else figures.rps
        for peer, runs in closed.items():
            rows.append([_title(w) if peer == next(iter(closed)) else "", peer, _spread(figures.of(runs, figure), 0),
                         _spread(figures.ratio(runs, closed.get(w.baseline, []), figure)) if peer != w.baseline else _DASH,
                         _share(runs, figures.proxy_busy) if peer != "direct" else _DASH, _share(runs, figures.load_busy)])
    return _table(["connections × pipeline", "peer", "requests/s (multi-gets: keys/s)", "against twemproxy (through: aside)",
                   "proxy busy", "others busy"], rows)


def _cpu(data: Dict[str, Any]) -> str:
    rows = []
    for w in _measured(data, BY_PROTOCOL, BESIDE_LARGE):
        closed = {p: r for p, r in data["workloads"][w.name]["closed"].items() if p != "direct"}
        for peer, runs in closed.items():
            rows.append([_title(w) if peer == next(iter(closed)) else "", peer, _spread(figures.of(runs, figures.cpu)),
                         _median(figures.of(runs, figures.cpu_user)), _median(figures.of(runs, figures.cpu_system)),
                         _spread(figures.ratio(runs, closed.get(w.baseline, []), figures.cpu)) if peer != w.baseline else _DASH])
    return _table(["connections × pipeline", "peer", "CPU s per million requests", "user", "system", "against twemproxy (through: aside)"],
                  rows)


def _latency(data: Dict[str, Any]) -> str:
    rows = []
    for w in _measured(data, BESIDE_LARGE):
        result = data["workloads"][w.name]
        for peer, runs in result["open"].items():
            rows.append([_title(w) if peer == next(iter(result["open"])) else "", peer, _number(result["rate"], 0),
                         *(_spread(figures.of(runs, figures.latency(q)), 0) for q in ("p50", "p99", "p99.9"))])
    return _table(["connections × pipeline", "peer", "requests/s offered", "p50 µs", "p99 µs", "p99.9 µs"], rows)


def _by_protocol(data: Dict[str, Any]) -> str:
    rows = []
    for w in WORKLOADS:
        closed = data["workloads"].get(w.name, {}).get("closed", {}) if w.peers == BY_PROTOCOL else {}
        names = [p for p in ("classic", "meta", "binary") if p in closed or f"direct-{p}" in closed]
        for name in names:
            ours, direct = closed.get(name, []), closed.get(f"direct-{name}", [])
            rows.append([_title(w) if name == names[0] else "", name])
            for runs, classic in ((ours, closed.get("classic", [])), (direct, closed.get("direct-classic", []))):
                rows[-1] += [_spread(figures.of(runs, figures.rps), 0), _spread(figures.of(runs, figures.cpu)),
                             _spread(figures.ratio(runs, classic, figures.cpu)) if name != "classic" else _DASH]
            rows[-1].append(_spread(figures.ratio(ours, direct, figures.cpu)))
    return _table(["connections × pipeline", "protocol", "Outrigger: requests/s", "CPU s per million", "against classic",
                   "memcached: requests/s", "CPU s per million", "against classic", "CPU, Outrigger against memcached"], rows)


def _beside_large(data: Dict[str, Any]) -> str:
    rows = []
    runs = data["workloads"].get("beside-large", {}).get("open", {})
    for title, prefix in (("memcached directly", "direct-"), ("through Outrigger", "")):
        alone, beside = runs.get(prefix + "alone", []), runs.get(prefix + "beside", [])
        for q in ("p50", "p99", "p99.9") if alone else ():
            late = figures.latency(q)
            rows.append([title if q == "p50" else "", q, _spread(figures.of(alone, late), 0), _spread(figures.of(beside, late), 0),
                         _spread(figures.ratio(beside, alone, late))])
    return _table(["", "", "alone, µs", "beside large values, µs", "ratio"], rows)


def _round_trip(data: Dict[str, Any]) -> str:
    closed = data["workloads"].get("get-1x1", {}).get("closed", {})
    p50 = figures.latency("p50")
    rows = [[peer, _spread(figures.of(runs, p50), 1),
             _spread(figures.difference(runs, closed.get("direct", []), p50), 1) if peer != "direct" else _DASH]
            for peer, runs in closed.items()]
    return _table(["peer", "median µs", "added to direct, µs"], rows)


def _memory(data: Dict[str, Any]) -> str:
    rows = []
    for peer, kinds in data["memory"].get("peers", {}).items():
        rows.append([peer, f"{kinds['used']['before_kib'] / 1024:.1f} MiB", *(f"{kinds[k]['kib_per_1000'] / 1024:.2f} MiB" for k in ("fresh", "used"))])
    return _table(["peer", "process before", "per 1,000 idle connections, never used", "per 1,000, after one GET on each"], rows)


_RUN = """\
`tests/bench/run` builds what it needs in `build-release/` and measures everything, for half an hour or more; nothing else should run meanwhile.

* `--list` names the workloads, `--only NAME` (repeatable) runs one of them, or all with NAME in their names: `--only protocol` for meta and binary beside
  classic, `--only beside-large` for small values beside large ones, `--only memory` for idle connections. `--peers direct` needs no sidecar.
* `--quick` takes short rounds, to see that everything works; its figures are not to be quoted. `--rounds N` and `--duration S` choose in between.
* `--json FILE` keeps all that was measured, `--from-json FILE` reports on it again, `--report FILE` writes this page. `--outrigger PATH` measures that binary.
* A workload in which a peer does not answer its protocol as it should fails, with what came back instead; the others go on, and the exit status is 1.
* The load generator alone: `build-release/tests/bench/load --help`. It speaks `--protocol classic`, `meta`, `meta-bare` (no opaque) and `binary`, with `--multi-get`
  as clients do it: `mg … k q` with `mn` behind, GETKQ with NOOP behind.
"""

_BY_PROTOCOL = """\
GET hits as clients of each protocol send them: `get KEY`, `mg KEY v f O<8 digits>`, binary GET. Outrigger has the scripted nodes behind it (which
it speaks meta with, whatever the client speaks); memcached is the real one, without a proxy, with one thread. Ratios are within a round.
"""

_BESIDE_LARGE = f"""\
GETs of {workloads.VALUE_SIZE:,} B from 10 connections at a fixed rate, alone, and while one more connection moves values of {workloads.LARGE_SIZE >> 20} MiB, {workloads.LARGE_RATE} a
second, half of them SETs. Real memcached. The generators share the nodes' processor, so memcached's own figures say how much of it is theirs.
"""


def _has(data: Dict[str, Any], peers: Tuple[str, ...]) -> bool:
    return any(w.peers == peers and w.name in data["workloads"] for w in WORKLOADS)


def write(data: Dict[str, Any], plan: Plan) -> str:
    parts = ["# Performance\n", "Written by `tests/bench/run --report`; every figure is from one run of it.\n",
             "## How to run it\n", _RUN, "## Machine\n", _machine(data), "## How it is measured\n", _how(data, plan)]
    sections = [("Must reach", "Ratios are to twemproxy in the same rounds, unless the line says otherwise.\n",
                 lambda d: _must_reach(d, plan)),
                ("Throughput", "", _throughput), ("CPU of the proxy", "", _cpu), ("Latency at a fixed rate", "", _latency),
                ("One connection, one request at a time", "Round trips in the closed loop. Direct, generator and node share a processor; a proxy on another\nadds two "
                 "wake-ups of a processor each way, which on a virtual machine cost more than the work.\n", _round_trip)]
    if _has(data, BY_PROTOCOL):
        sections.append(("Protocols", _BY_PROTOCOL, _by_protocol))
    if _has(data, BESIDE_LARGE):
        sections.append(("Small values beside large ones", _BESIDE_LARGE, _beside_large))
    for title, text, section in sections:
        parts += [f"## {title}\n", *([text] if text else []), section(data)]
    if data.get("memory"):
        parts += ["## Memory of idle connections\n", f"Growth of the process's resident memory (the kernel's socket buffers not included) "
                  f"with {data['memory']['connections']:,} connections.\n", _memory(data)]
    return "\n".join(parts)
