"""What became of a fault, as a row of the table in docs/consistency.md."""

from typing import Dict, List, NamedTuple, Optional, Sequence

from .probes import Probe, Sampler, Span, failures, longest_gap, slowest, within

HEAD = """\
| fault | strong writes stood still, there / elsewhere | strong writes answered with an error, there / elsewhere | strong reads from the primary, there / elsewhere \
| strong reads: errors, slowest | eventual: errors, slowest |
| --- | --- | --- | --- | --- | --- |"""


class Figures(NamedTuple):
    """Seconds, and numbers of answers; of the worst region where there are several. `there` is None if the fault is everywhere."""

    fault: str
    gap: Dict[str, Optional[float]]
    errors: Dict[str, Optional[int]]
    writes: Dict[str, Optional[int]]
    primary: Dict[str, Optional[float]]
    strong_read: tuple
    eventual: tuple


def figures(fault: str, region: Optional[str], span: Span, probes: Sequence[Probe], samplers: Sequence[Sampler]) -> Figures:
    def split(values: List[tuple], worst) -> Dict[str, Optional[float]]:
        here = [value for name, value in values if name == region]
        others = [value for name, value in values if name != region]
        return {"there": worst(here) if here else None, "elsewhere": worst(others) if others else None}
    strong = [p for p in probes if p.kind == "strong-write"]
    reads = [p for p in probes if p.kind == "strong-read"]
    eventual = [p for p in probes if p.kind.startswith("eventual")]
    return Figures(
        fault, split([(p.region, longest_gap(p.asked, span)) for p in strong], max), split([(p.region, failures(p.asked, span)) for p in strong], sum),
        split([(p.region, len(within(p.asked, span))) for p in strong], sum), split([(s.region, s.away(span)) for s in samplers], max),
        (sum(failures(p.asked, span) for p in reads), max(slowest(p.asked, span) for p in reads)),
        (sum(failures(p.asked, span) for p in eventual), max(slowest(p.asked, span) for p in eventual)))


def _seconds(value: Optional[float]) -> str:
    return "–" if value is None else f"{value * 1000:.0f} ms" if value < 0.95 else f"{value:.1f} s"


def _pair(values: Dict[str, Optional[float]], text) -> str:
    if values["there"] is None:
        return text(values["elsewhere"])
    return f"{text(values['there'])} / {text(values['elsewhere'])}"


def row(f: Figures) -> str:
    def share(name: str) -> str:
        return "–" if f.errors[name] is None else f"{f.errors[name]} of {f.writes[name]}"
    errors = share("elsewhere") if f.errors["there"] is None else f"{share('there')} / {share('elsewhere')}"
    cells = [f.fault, _pair(f.gap, _seconds), errors, _pair(f.primary, lambda v: "–" if v is None else "0" if v < 0.05 else _seconds(v)),
             f"{f.strong_read[0]}, {_seconds(f.strong_read[1])}", f"{f.eventual[0]}, {_seconds(f.eventual[1])}"]
    return "| " + " | ".join(cells) + " |"
