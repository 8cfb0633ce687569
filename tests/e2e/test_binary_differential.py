"""The binary protocol, answer for answer: differential.py says how."""

import pytest

import binary_cases
from differential import Difference, check_table, runs
from streams import Binary

#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES = [
    Difference("key-187", rb"(op \w\w status 04 lengths 0 0 57 .* b'a key with spaces or line ends may have 186 bytes at most'\n)+op 0a status 00 .*",
               "nodes get such a key in base64, of which a key may have 250 bytes"),
    Difference("verbosity|(shape|datatype|vbucket)-verbosity", rb"(op 01 .*\n)*op 1b status 00 lengths 0 0 0 .*\nop 0a status 00 .*(\nop 0c .*)?",
               "memcached 1.6.38 does not know it any more, and loses step over its extras"),
    Difference("extras-255-(unknown|verbosity)", rb"(op 01 .*\n)+op (1b|50) status 81 .* b'Unknown command'",
               "memcached says so when it has swallowed what it takes for the body, the sidecar at once"),
    Difference("body-(ffffffff|80000000|7fffffff|7ffffff0)", rb"op 01 status 00 .*\nop 01 status 03 .* b'Too large\.'",
               "at once, and the body is skipped; beyond 2 GiB memcached's length is negative"),
    Difference("stat-conns", rb"op 10 status 00 lengths 0 0 0 .*\nop 0a status 00 .*", "a sidecar tells of its connections in this protocol, too"),
]


@pytest.mark.parametrize("case, how", runs(binary_cases.CASES, every=5))
def test_alike(pair, case, how):
    pair.compare(case, how, DIFFERENCES, Binary)


def test_every_difference_is_met():
    check_table(binary_cases.CASES, DIFFERENCES)
