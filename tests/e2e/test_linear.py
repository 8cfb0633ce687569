"""tests/linear in short: three regions under faults keep the regional promise, stale reads are measured, and the check misses a guard that is out."""

import sys

import pytest

from support import ROOT

sys.path[:0] = [str(ROOT / "tests/linear"), str(ROOT / "tests/races")]

from linearity import history as histories  # noqa: E402
from linearity import session, staleness  # noqa: E402
from linearity.rig import Rig  # noqa: E402
from racing import arena as arenas  # noqa: E402

SEED = 20261124
SECONDS = 6.0
CLIENTS = 6  #: in each region
ROUNDS = 6  #: without a guard; each is likely to show it


@pytest.fixture(scope="module")
def rig(watch, directory):
    if not arenas.binary().exists():
        pytest.fail(f"{arenas.binary()} is not there: tests/run test_linear builds it")
    with Rig(directory, arenas.binary()) as rig:
        yield rig


def test_the_regional_promise_holds_under_faults(rig, tmp_path):
    operations, steps, _ = session.record(rig, SEED, SECONDS, CLIENTS, print)
    histories.save(tmp_path / "history", {"seed": SEED}, operations)
    assert histories.load(tmp_path / "history")[1] == operations, "a saved history is the same"
    violations = staleness.regional(operations)
    assert not violations, violations[0].tell(operations[0].begin)
    rows = staleness.figures(operations)
    print(staleness.table(rows))
    assert [row.region for row in rows] == sorted(rig.regions) and steps
    for region in rig.regions:
        acknowledged = {o.kind for o in operations if o.region == region and histories.is_acknowledged(o)}
        assert acknowledged == {"write", "cas", "delete"}, region


def test_a_guard_is_missed(rig):
    rig.restart_with("post_write_tombstone")
    try:
        for number in range(ROUNDS):
            operations, _, _ = session.record(rig, SEED + number, 3.0, CLIENTS, print)
            violations = staleness.regional(operations)
            if violations:
                print(violations[0].tell(operations[0].begin))
                return
        pytest.fail("without its guard nothing was noticed")
    finally:
        rig.use(None)
