"""The meta protocol, answer for answer: differential.py says how."""

import pytest

import meta_cases
from differential import Difference, check_table, runs

#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES: "list[Difference]" = []


@pytest.mark.parametrize("case, how", runs(meta_cases.CASES, every=5))
def test_alike(pair, case, how):
    pair.compare(case, how, DIFFERENCES)


def test_every_difference_is_met():
    check_table(meta_cases.CASES, DIFFERENCES)
