"""How old the answers of reads were, and the promise that each region keeps to its own.

A write was *surely overwritten* once another one that began after its end was acknowledged: which of two that were under way at the same time came
first nobody can say, so such are never counted against an answer. A write that was answered with an error counts as ended with the first read that
showed its value. The **staleness** of a read is its begin - the end of the first acknowledged write that surely overwrote what it returned, or 0 if
that is not positive. A read of "nothing there" returned the latest delete that it may have returned.

The **regional promise** (docs/consistency.md, `write: through`): no read of a region is stale by the writes that were acknowledged in that region.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence

from .history import FAILED, OK, Operation, Overwrites, Value, by_key, is_acknowledged, unique_writes
from .linearizability import describe

_NEVER = 1 << 62
_ALWAYS = -1


def _registers(operations: Iterable[Operation]) -> Dict[str, List[Operation]]:
    """By key, without counters: what they hold nobody has written."""
    return {key: own for key, own in by_key(operations).items() if not any(o.kind == "incr" for o in own)}


class _Key:
    """When each value of a key was there at the latest."""

    def __init__(self, operations: Sequence[Operation], initial: Value):
        self.operations = operations
        self.initial = initial
        self.reads = [o for o in operations if o.kind == "read" and o.outcome == OK]
        self._unique = unique_writes(operations, initial)
        self._shown: Dict[Value, int] = {}
        for read in self.reads:
            self._shown[read.result] = min(read.end, self._shown.get(read.result, _NEVER))
        # Deletes by begin, with the latest end of those so far: a read may have returned any that had begun.
        deletes = sorted((o for o in operations if o.kind == "delete" and o.outcome != FAILED), key=lambda o: o.begin)
        self._delete_begins = [o.begin for o in deletes]
        self._delete_ends: List[int] = []
        for o in deletes:
            end = o.end if o.outcome == OK else _NEVER
            self._delete_ends.append(max([end, *self._delete_ends[-1:]]))

    def settled(self, read: Operation) -> Optional[int]:
        """The time from which on a write surely overwrites what was read; None: nobody wrote that."""
        if read.result is None:
            place = bisect_right(self._delete_begins, read.end)
            if place:
                return self._delete_ends[place - 1]
            return _ALWAYS if self.initial is None else None
        write = self._unique.get(read.result)
        if write is None:
            return _ALWAYS if read.result == self.initial else None
        if write.begin > read.end:
            return None
        return min(write.end if write.outcome == OK else _NEVER, self._shown[read.result])


class Violation(NamedTuple):
    """A read, and the write that it should have shown; none: what it returned had never been written."""

    read: Operation
    write: Optional[Operation]
    source: Optional[Operation] = None  #: the write of what was returned

    def tell(self, zero: int = 0) -> str:
        if self.write is None:
            return f"{self.read.key}: what nobody had written (ms):\n  " + describe(self.read, zero)
        told = [describe(o, zero) for o in (self.source, self.write, self.read) if o is not None]
        return (f"{self.read.key}: {self.read.region} had acknowledged a newer write {(self.read.begin - self.write.end) / 1e6:.3f} ms before this "
                "read began (ms):\n  " + "\n  ".join(told))


def regional(operations: Iterable[Operation], initial: Optional[Dict[str, Value]] = None) -> List[Violation]:
    """The reads that break the regional promise, and those of what nobody had written; by begin."""
    found: List[Violation] = []
    for key, own in _registers(operations).items():
        times = _Key(own, (initial or {}).get(key))
        unique = unique_writes(own)
        overwrites = {region: Overwrites(o for o in own if is_acknowledged(o) and o.region == region) for region in {o.region for o in own}}
        for read in times.reads:
            settled = times.settled(read)
            newer = None if settled is None else overwrites[read.region].after(settled)
            if settled is None or (newer is not None and newer.end < read.begin):
                found.append(Violation(read, newer, unique.get(read.result)))
    return sorted(found, key=lambda v: v.read.begin)


def staleness(operations: Iterable[Operation], initial: Optional[Dict[str, Value]] = None) -> Dict[str, List[int]]:
    """By region, of each read: nanoseconds. Reads of what nobody had written are left out."""
    found: Dict[str, List[int]] = {}
    for key, own in _registers(operations).items():
        times = _Key(own, (initial or {}).get(key))
        overwrites = Overwrites(o for o in own if is_acknowledged(o))
        for read in times.reads:
            settled = times.settled(read)
            if settled is not None:
                newer = overwrites.after(settled)
                found.setdefault(read.region, []).append(max(0, read.begin - newer.end) if newer is not None else 0)
    return found


@dataclass
class Figures:
    """Of one region. The percentiles are those of the stale reads."""

    region: str
    reads: int
    stale: int
    share: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def _percentile(ordered: Sequence[int], share: float) -> float:
    """The least value that is not exceeded by so large a share of them, in milliseconds."""
    if not ordered:
        return 0.0
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)] / 1e6


def figures(operations: Iterable[Operation], initial: Optional[Dict[str, Value]] = None) -> List[Figures]:
    rows = []
    for region, ages in sorted(staleness(operations, initial).items()):
        stale = sorted(age for age in ages if age > 0)
        rows.append(Figures(region, len(ages), len(stale), len(stale) / len(ages), round(_percentile(stale, 0.5), 3),
                            round(_percentile(stale, 0.99), 3), round(stale[-1] / 1e6, 3) if stale else 0.0))
    return rows


def table(rows: Sequence[Figures]) -> str:
    lines = [f"{'region':<12}{'reads':>10}{'stale':>10}{'share':>10}{'p50 ms':>12}{'p99 ms':>12}{'max ms':>12}"]
    lines += [f"{r.region:<12}{r.reads:>10}{r.stale:>10}{r.share:>10.3%}{r.p50_ms:>12.3f}{r.p99_ms:>12.3f}{r.max_ms:>12.3f}" for r in rows]
    return "\n".join(lines)


def as_json(rows: Sequence[Figures]) -> List[Dict[str, Any]]:
    return [vars(row) for row in rows]
