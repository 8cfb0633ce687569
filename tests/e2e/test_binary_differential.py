"""The binary protocol, answer for answer: differential.py says how."""

import pytest

import binary_cases
from differential import Difference, check_table, runs
from streams import Binary

#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES: "list[Difference]" = []


@pytest.mark.parametrize("case, how", runs(binary_cases.CASES, every=5))
def test_alike(pair, case, how):
    pair.compare(case, how, DIFFERENCES, Binary)


def test_every_difference_is_met():
    check_table(binary_cases.CASES, DIFFERENCES)
