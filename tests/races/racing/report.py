"""Everything that is known about a violation: the seed, the schedule, the key's history, what the nodes hold and what MySQL holds."""

import json
import time
from pathlib import Path
from typing import Any, Dict, List

from . import arena as arenas
from .arena import Arena
from .faults import Faults, Step
from .history import History, Violation


def _tried(what: Any) -> Any:
    try:
        return what()
    except Exception as e:  # a server that is down or stopped is part of the report
        return f"{type(e).__name__}: {e}"


def holdings(arena: Arena, key: str) -> Dict[str, Any]:
    """What the nodes and the databases have under a key."""
    def node_has(node: Any) -> str:
        return node.command(b"mg %s s v t f c k\r\n" % key.encode(), 1.0).decode(errors="replace")[:300]
    return {"nodes": {node.name: _tried(lambda n=node: node_has(n)) for _, node in arena.nodes()},
            "me": {node.name: _tried(lambda n=node: n.command(b"me %s\r\n" % key.encode(), 1.0).decode(errors="replace").strip())
                   for _, node in arena.nodes()},
            "primary": _tried(lambda: arena.rows(arena.primary, [key])[key]), "replica": _tried(lambda: arena.rows(arena.replica, [key])[key])}


def gather(arena: Arena, history: History, violation: Violation, session: Dict[str, Any]) -> Dict[str, Any]:
    """At once, while it is still as it was."""
    found: Dict[str, Any] = {"violation": str(violation), "at": round(violation.at - history.started, 6), "key": violation.key,
                             "region": violation.region, "session": session, "reported": time.strftime("%Y-%m-%d %H:%M:%S")}
    if violation.key is not None:
        found["holds"] = holdings(arena, violation.key)
        found["history"] = history.of(violation.key)
    return found


def add_schedule(found: Dict[str, Any], steps: List[Step], faults: Faults) -> None:
    found["schedule"] = [step._asdict() for step in steps]
    found["faults"] = faults.done


def text(found: Dict[str, Any]) -> str:
    lines = [f"VIOLATION at {found['at']:.3f} s: {found['violation']}", f"  session: {json.dumps(found['session'])}"]
    if "history" in found:
        lines += [f"  {server}: {answer!r}" for server, answer in found["holds"]["nodes"].items()]
        lines += [f"  {server} me: {answer!r}" for server, answer in found["holds"]["me"].items()]
        lines += [f"  MySQL: primary has write {found['holds']['primary']}, replica {found['holds']['replica']}"]
        lines += [f"  acknowledged: {found['history']['floors']}"]
        events = [(w["started"], f"write {w['seq']} by {w['sidecar']}: {w['answer']}", w) for w in found["history"]["writes"]]
        events += [(r["started"], f"read  {r['seq']} by {r['sidecar']} (at least {r['floor']})", r) for r in found["history"]["reads"]]
        events.sort(key=lambda e: e[0])
        near = [e for e in events if e[0] <= found["at"]][-60:]
        lines += [f"  {e[2]['started']:10.4f} … {e[2]['ended']:10.4f}  {e[1]}" for e in near]
    lines += [f"  fault {f['at']:8.3f} s (took {f['took']:.3f}) {f['action']} {f['target']} {'begins' if f['begins'] else 'ends'}: {f['outcome']}"
              for f in found.get("faults", [])]
    return "\n".join(lines)


def write(directory: Path, found: Dict[str, Any], number: int) -> Path:
    path = directory / f"violation-{number}.json"
    path.write_text(json.dumps(found, indent=1))
    return path


def load(path: Path) -> Dict[str, Any]:
    """A report, for --replay."""
    return json.loads(path.read_text())


__all__ = ["add_schedule", "arenas", "gather", "holdings", "load", "text", "write"]
