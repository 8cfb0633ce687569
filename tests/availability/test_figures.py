"""How gaps, errors and slow answers are counted, by hand."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("tests/availability", "tests/support", "deploy")]

from outages import probes, report  # noqa: E402
from outages.probes import Asked, Span  # noqa: E402


def good(begin: float, end: float) -> Asked:
    return Asked(begin, end, True, "STORED")


def test_gaps():
    asked = [good(0.0, 0.1), good(0.2, 0.3), Asked(0.4, 2.0, False, "SERVER_ERROR"), Asked(2.0, 3.0, False, "TimeoutError"), good(3.0, 4.3), good(4.4, 4.5)]
    assert probes.longest_gap(asked, Span(0.2, 5.0)) == 4.0
    assert probes.longest_gap(asked, Span(4.4, 9.0)) == 4.5  # until its end
    assert probes.longest_gap(asked, Span(4.6, 4.7)) == 4.7 - 4.5  # since the last before it
    assert probes.longest_gap([], Span(1.0, 3.0)) == 2.0
    assert probes.failures(asked, Span(0.0, 5.0)) == 1 and probes.failures(asked, Span(2.5, 5.0)) == 0
    assert probes.slowest(asked, Span(0.0, 1.0)) == 1.6


def test_a_row():
    probe = probes.Probe("east", "strong-write", [], None)
    probe.asked = [good(0.0, 0.5), good(0.5, 2.5)]
    sampler = probes.Sampler("east", type("Sidecar", (), {"name": "east"}), None)
    sampler.seen = [(0.0, True), (0.5, False), (1.0, None), (1.5, False), (2.0, True)]
    quiet = probes.Probe("west", "strong-write", [], None)
    reads = [probes.Probe("east", kind, [], None) for kind in ("strong-read", "eventual-read")]
    found = report.figures("a fault", "east", Span(0.0, 2.5), [probe, quiet, *reads], [sampler])
    assert found.gap == {"there": 2.0, "elsewhere": 2.5} and found.primary == {"there": 1.0, "elsewhere": None}
    assert report.row(found) == "| a fault | 2.0 s / 2.5 s | 0 of 2 / 0 of 0 | 1.0 s / – | 0, 0 ms | 0, 0 ms |"
    assert report.HEAD.splitlines()[0].count("|") == report.row(found).count("|")
