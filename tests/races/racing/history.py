"""What was written, acknowledged and read, by key; and the promises that are checked.

Every write of a key has a number, its seq, one more than the last; the value says it: "KEY:SEQ:padding:SEQ". A write is acknowledged in a region when a
sidecar of that region has answered so. From then on no read of that region that is sent may have a smaller seq.
"""

import threading
import time
from collections import defaultdict, deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Set

_READS_KEPT = 400
_WRITES_KEPT = 400


def padding(seq: int) -> int:
    return seq * 37 % 900


def value_of(row: str, seq: int) -> bytes:
    """The only value that write `seq` of a row can have. arena.UPDATE computes the same in SQL."""
    return b"%s:%d:%s:%d" % (row.encode(), seq, b"x" * padding(seq), seq)


class Write(NamedTuple):
    seq: int
    region: str
    sidecar: str
    started: float
    ended: float
    answer: str  #: acknowledged if it is STORED or DELETED


class Read(NamedTuple):
    seq: int  #: -1: a miss
    region: str
    sidecar: str
    started: float
    ended: float
    floor: int  #: the least seq it could have


class Violation(Exception):
    """A promise that was broken. `key` may be None."""

    def __init__(self, text: str, key: Optional[str] = None, region: Optional[str] = None):
        super().__init__(text)
        self.key = key
        self.region = region
        self.at = time.time()


class History:
    """Shared by all threads. What is looked up on every read is single dictionary operations, which the interpreter makes atomic."""

    def __init__(self, regions: List[str]):
        self.floors: Dict[str, Dict[str, int]] = {region: {} for region in regions}
        self.writes: Dict[str, Deque[Write]] = defaultdict(lambda: deque(maxlen=_WRITES_KEPT))
        self.reads: Dict[str, Deque[Read]] = defaultdict(lambda: deque(maxlen=_READS_KEPT))
        self.unsettled: Dict[str, Set[int]] = defaultdict(set)  # writes of unknown outcome: they may take effect at any time
        self.counts: Dict[str, int] = defaultdict(int)
        self.violations: List[Violation] = []
        self.failed = threading.Event()
        self._lock = threading.Lock()
        self.started = time.time()

    def count(self, **grown: int) -> None:
        with self._lock:
            for name, number in grown.items():
                self.counts[name] += number

    def floor(self, region: str, key: str) -> int:
        return self.floors[region].get(key, 0)

    def wrote(self, key: str, write: Write) -> None:
        with self._lock:
            self.writes[key].append(write)
            if write.answer in ("DELETED", "STORED"):
                floors = self.floors[write.region]
                floors[key] = max(floors.get(key, 0), write.seq)

    def violated(self, violation: Violation) -> None:
        with self._lock:
            self.violations.append(violation)
        self.failed.set()

    def read(self, key: str, row: str, value: Optional[bytes], region: str, sidecar: str, started: float, floor: int) -> int:
        """Checks and notes one read; its seq. What is wrong is noted, not raised."""
        seq = -1
        if value is not None:
            try:
                seq = int(value.split(b":", 2)[1])
                intact = value == value_of(row, seq)
            except (ValueError, IndexError):
                intact = False
            if not intact:
                self.violated(Violation(f"{sidecar} answered get {key} with what was never written: {value[:200]!r}… ({len(value)} bytes)",
                                        key, region))
                return seq
        self.reads[key].append(Read(seq, region, sidecar, started, time.time(), floor))
        if seq < floor and seq not in self.unsettled.get(key, ()):
            what = f"write {seq}" if value is not None else "a miss"
            self.violated(Violation(f"{sidecar} answered get {key} with {what}, although write {floor} had been acknowledged in {region} before "
                                    "that read was sent", key, region))
        return seq

    def of(self, key: str) -> Dict[str, Any]:
        """For a report: times in seconds since the start."""
        def told(records: Any) -> List[Dict[str, Any]]:
            return [{**r._asdict(), "started": round(r.started - self.started, 6), "ended": round(r.ended - self.started, 6)} for r in list(records)]
        return {"writes": told(self.writes[key]), "reads": told(self.reads[key]), "unsettled": sorted(self.unsettled[key]),
                "floors": {region: floors.get(key, 0) for region, floors in self.floors.items()}}
