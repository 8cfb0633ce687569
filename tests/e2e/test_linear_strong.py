"""tests/linear for strong namespaces, in short: what clients of three regions are answered under faults of everything, links between regions included,
is linearizable, write: aside has no stale read after an acknowledged write, and each guard is missed when it is out."""

import os
import sys

import pytest

from support import ROOT

sys.path[:0] = [str(ROOT / "tests/linear"), str(ROOT / "tests/races")]

from linearity import history as histories  # noqa: E402
from linearity import linearizability, scenarios, session  # noqa: E402
from linearity.rig import Rig  # noqa: E402
from racing import arena as arenas  # noqa: E402
from wan import Unavailable  # noqa: E402

SECONDS = float(os.environ.get("OUTRIGGER_LINEAR_SECONDS", "30"))
SEED = int(os.environ.get("OUTRIGGER_LINEAR_SEED", "20261124"))
CLIENTS = 4  #: in each region


@pytest.fixture(scope="module")
def rig(watch, directory):
    if not arenas.binary().exists():
        pytest.fail(f"{arenas.binary()} is not there: tests/run test_linear_strong builds it")
    try:
        rig = Rig(directory, arenas.binary(), consistency="strong", wan=True)
    except Unavailable as e:
        pytest.skip(f"needs network namespaces and TUN devices: {e}")
    with rig:
        yield rig


def test_all_regions_are_one_under_faults(rig):
    operations, steps, stale = session.record(rig, SEED, SECONDS, CLIENTS, print)
    assert not stale, stale[0]
    broken = [v for v in linearizability.check(operations) if not v.is_ok]
    assert not broken, linearizability.tell(broken[0], operations[0].begin)
    assert any(step.action.startswith(("link-", "region-")) for step in steps)
    for region in rig.regions:
        acknowledged = {o.kind for o in operations if o.region == region and histories.is_acknowledged(o)}
        assert acknowledged >= {"write", "delete"}, region


@pytest.mark.parametrize("guard", list(scenarios.SCENES))
def test_a_guard_is_missed(rig, guard):
    found = scenarios.play(rig, guard, is_broken=True)
    assert found, f"without its guard, {guard} went unnoticed"
    print(linearizability.tell(found[0]))
