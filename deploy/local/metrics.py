"""What a sidecar's /metrics says."""

import re
from typing import Dict, Tuple

# The names that the demo and the tests look at (proxy/metrics.def has them all).
LOADS = "outrigger_loads_total"
HITS = "outrigger_hits_total"
MISSES = "outrigger_misses_total"
BUS_APPLIED = "outrigger_bus_applied_total"
BUS_PUBLISHED = "outrigger_bus_published_total"

Series = Tuple[str, Tuple[Tuple[str, str], ...]]  #: a name and its labels, sorted

_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}


class Samples(Dict[Series, float]):
    """One reading of all series."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels; 0 when there is none."""
        return sum(value for (n, have), value in self.items() if n == name and labels.items() <= dict(have).items())

    def since(self, earlier: "Samples") -> "Samples":
        """How much each series has grown."""
        return Samples((k, v - earlier.get(k, 0.0)) for k, v in self.items())


def parse(text: str) -> Samples:
    """Reads the Prometheus text format. Fails with ValueError, which quotes the line."""
    samples = Samples()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line.strip())
        if not found:
            raise ValueError(f"not a sample of the Prometheus text format: {line!r}")
        labels = []
        rest = found[2] or ""
        while rest:
            label = _LABEL.match(rest)
            if not label:
                raise ValueError(f"broken labels: {line!r}")
            labels.append((label[1], re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), label[2])))
            rest = rest[label.end():]
        samples[found[1], tuple(sorted(labels))] = float(found[3])
    return samples
