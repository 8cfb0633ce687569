"""The part of the demo's walk that is about a strong namespace: what is acknowledged in one region is read in all, at once.

Nothing is waited for between a write's answer and the reads: that they are right is the point.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from .cluster import Cluster
from .console import Console
from .walk_regions import Wrong

PREFIX = "stock:"
_KEY = PREFIX + "tickets"
_WRITES = 20
_INCREMENTS = 10  # of each region

#: Short times, as everything is on one machine.
STRONG = {"lease": "1s", "lock_window": "5s", "prepare_timeout": "500ms"}
NAMESPACE = {"prefix": PREFIX, "name": "stock", "read": "through", "write": "through", "consistency": "strong", "source": "entries"}


class StrongWalk:
    """Steps of Walk, with its clients: one of each region."""

    def __init__(self, cluster: Cluster, console: Console, clients: Dict[str, Client]):
        self._cluster = cluster
        self._console = console
        self._clients = clients

    def parts(self) -> List[Any]:
        return [(f"A strong namespace: {PREFIX}* is the same in {', '.join(self._clients)}", self._written, self._counted)]

    def _everybody_reads(self, value: bytes) -> None:
        for region, client in self._clients.items():
            got = client.get(_KEY)
            if got != value:
                raise Wrong(f"{region} reads {got!r}, and {value!r} has been acknowledged")

    def _written(self) -> None:
        regions = list(self._clients)
        took = []
        for i in range(_WRITES):
            value = b"%d" % i
            start = time.perf_counter()
            self._clients[regions[i % len(regions)]].set(_KEY, value)
            took.append(time.perf_counter() - start)
            self._everybody_reads(value)
        self._console.ok(f"{_WRITES} sets in turn, each read in every region", sorted(took)[_WRITES // 2], "median of a set: locks everywhere, and MySQL")

    def _increment(self, region: str) -> List[int]:
        """The numbers that were answered. Who meets another's lock for too long is told so, and tries again."""
        client = self._clients[region]
        numbers: List[int] = []
        while len(numbers) < _INCREMENTS:
            try:
                numbers.append(client.incr(_KEY, 1))
            except MemcacheServerError as e:
                if "another write of this key" not in str(e):
                    raise
        return numbers

    def _counted(self) -> None:
        self._clients[next(iter(self._clients))].set(_KEY, b"0")
        start = time.perf_counter()
        with ThreadPoolExecutor(max_workers=len(self._clients)) as threads:
            answered = sorted(n for numbers in threads.map(self._increment, self._clients) for n in numbers)
        total = _INCREMENTS * len(self._clients)
        if answered != list(range(1, total + 1)):
            raise Wrong(f"{total} increments were answered {answered}")
        self._everybody_reads(b"%d" % total)
        self._console.ok(f"{total} incr, from all regions at once", time.perf_counter() - start, "no number was answered twice, and none left out")
