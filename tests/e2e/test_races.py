"""The race harness (tests/races) in short: nothing is wrong with all guards in force, and each guard is missed when it is out."""

import os
import sys

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / "tests/races"))

from racing import arena as arenas  # noqa: E402
from racing import scenarios  # noqa: E402
from racing.arena import Arena, Fault  # noqa: E402
from racing.session import Session  # noqa: E402

SECONDS = float(os.environ.get("OUTRIGGER_RACE_SECONDS", "25"))
SEED = 20261124


@pytest.fixture(scope="module")
def arena(watch, directory):
    if not arenas.binary().exists():
        pytest.fail(f"{arenas.binary()} is not there: tests/run test_races builds it")
    with Arena(directory, arenas.binary()) as arena:
        yield arena


@pytest.fixture
def session(arena, directory):
    lines = []
    session = Session(arena, directory, {"seed": SEED, "mode": arena.mode, "seconds": SECONDS}, lines.append)
    yield session
    print("\n".join(lines))


@pytest.mark.parametrize("name", [*scenarios.BY_GUARD, *scenarios.OTHERS])
def test_a_race_is_harmless(session, name):
    assert not session.scenario(name, broken=False), session.result.texts


def test_traffic_under_faults(session):
    assert not session.traffic(SEED, SECONDS), "\n".join(session.result.texts)
    assert session.result.counts["reads"] > 0 and session.result.counts["writes"] > 0 and session.result.counts["fills"] > 0


@pytest.mark.parametrize("guard", list(scenarios.BY_GUARD))
def test_a_guard_is_missed(arena, session, guard):
    arena.restart_with(Fault(broken=guard))
    try:
        assert session.scenario(guard, broken=True), f"without its guard, {guard} went unnoticed"
    finally:
        arena.use(Fault())
