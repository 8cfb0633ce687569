"""The meta protocol, answer for answer: differential.py says how."""

import pytest

import meta_cases
from differential import Difference, check_table, runs

#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES = [
    Difference("b64-vivified-.*|b64-of-a-text-key", rb"(?s).* k[A-Za-z0-9+/]+=* b.*", "memcached shows a key as the request that made the entry wrote it, "
               "and forgets that N was given one in base64; the sidecar as this request wrote it"),
    Difference("b64(-miss)?-(newline|crlf)|me-binary", rb"(?s).*CLIENT_ERROR me can not show a key with line ends\r\n.*",
               "a node may show such a key as it is, and its line would be taken for several"),
    Difference("mg-bad-T5_Ox40_v|ma-miss-N30_Ox32|ma-hit-.*Ox32", rb"(HD\r\n)?CLIENT_ERROR opaque token too long\r\nMN\r\n(EN\r\nNF|VA 2 t-1\r\n10\r\nVA 2\r\n11|VA 1 t-1\r\nA)\r\n",
               "memcached sees it when it has touched or counted; here nothing has been done"),
    Difference("ma-miss-N30_q", rb"MN\r\nVA 1 t<=30\r\n0\r\nVA 1\r\n1\r\n", "a node does not tell whether ma has made the entry or changed it"),
    Difference("ms-too-large-2G", rb"HD\r\nSERVER_ERROR object too large for cache\r\n", "memcached says so when it has swallowed the value, the sidecar at once"),
    Difference("stale-classic", rb"(?s).*VA 1 Z X\r\nA\r\n.*", "nodes are spoken to in meta commands, whose get takes the right to refill a stale entry; memcached's classic get does not"),
]


@pytest.mark.parametrize("case, how", runs(meta_cases.CASES, every=5))
def test_alike(pair, case, how):
    pair.compare(case, how, DIFFERENCES)


def test_every_difference_is_met():
    check_table(meta_cases.CASES, DIFFERENCES)
