"""This machine: its description, which of its processors is for whom, and who else uses them meanwhile."""

import datetime
import os
import platform
import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cpus:
    """Processor numbers. With two processors the load generator and the nodes share one."""
    proxy: int
    load: int
    nodes: int


def plan_cpus(text: str = "") -> Cpus:
    """From "PROXY,LOAD,NODES", or the first that we may use. Fails with ValueError when there are fewer than two."""
    if text:
        return Cpus(*(int(n) for n in text.split(",")))
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise ValueError("two processors are needed: one for the proxy, one for the load generator and the nodes")
    return Cpus(proxy=mine[0], load=mine[1], nodes=mine[2] if len(mine) > 2 else mine[1])


def raise_descriptor_limit(wanted: int = 65536) -> int:
    """For this process and its children; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(wanted, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def rss_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1))


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of processes that run, over all threads."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass
    return total / 1e9


@dataclass(frozen=True)
class Busy:
    """Seconds that processors were busy, and were kept from us by the hypervisor, since boot."""
    used: float
    stolen: float


def busy(cpus: Iterable[int]) -> Busy:
    used = stolen = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{n}" for n in cpus}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[:8])
            used += user + nice + system + irq + softirq
            stolen += steal
    return Busy(used / _TICK, stolen / _TICK)


def _first_line(argv: List[str]) -> str:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False)
        return (done.stdout.strip().splitlines() or ["?"])[0]
    except (OSError, subprocess.TimeoutExpired):
        return "?"


def describe(programs: Dict[str, List[str]]) -> Dict[str, str]:
    """The machine, and the first line that each of the programs prints."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", cpuinfo)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    os_name = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    hypervisor = " (virtual machine)" if " hypervisor" in cpuinfo else ""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores{hypervisor}",
        "memory": f"{memory / 1024 / 1024:.1f} GiB",
        "kernel": platform.release(),
        "system": os_name.group(1) if os_name else "?",
        **{name: _first_line(argv) for name, argv in programs.items()},
    }
