"""The classic text protocol, answer for answer: differential.py says how."""

import random
from typing import List

import pytest

import classic_cases
from differential import Difference, Talk, WAIT, check_table, runs
from streams import Case

#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES = [
    Difference("admin-.*", rb"ERROR\r\n", "about one node's memory; a sidecar stands for many nodes"),
    Difference("version.*", rb"VERSION 1\.6\.38-outrigger-\S+\r\n", "the sidecar's version, behind that of the memcached it speaks like"),
    Difference("stats", rb"(STAT \S+ .*\r\n)+END\r\n", "the sidecar's own counters"),
    Difference("too-large-2G|length-214748364[45]", rb"SERVER_ERROR object too large for cache\r\n",
               "memcached says so when it has swallowed the value, the sidecar at once"),
    Difference("gat-refused", rb"STORED\r\nCLIENT_ERROR bad command line format\r\nVALUE a 1 1\r\nA\r\nEND\r\n",
               "memcached touches the keys in front of the one that it refuses the line for, the sidecar none"),
]

CASES = classic_cases.CASES + [
    Case("gat-refused", [classic_cases.A, b"gat -1 a " + classic_cases.K251 + b"\r\n", b"get a\r\n"], "differs: see above"),
]


@pytest.mark.parametrize("case, how", runs(CASES, every=5))
def test_alike(pair, case, how):
    pair.compare(case, how, DIFFERENCES)


def random_session(seed: int) -> List[bytes]:
    """Requests that follow from each other: a few keys, mostly good grammar. Each is a piece of its own, since memcached forgets the
    answers that it has not sent yet when it refuses a request."""
    chance = random.Random(seed)
    keys = [b"a", b"b", b"n", b"n", b"k" * 250, b"k" * 251, b"get", b"\xc3\xa4", b"a\tb"]
    times = [b"0", b"0", b"0", b"100", b"-1", b"2592001", b"4102444800", b"x"]
    numbers = [b"0", b"1", b"7", b"18446744073709551615", b"-1", b"x"]
    # Numbers never get shorter, since it depends on memcached's housekeeping whether spaces are left behind them then; and no value is
    # b"\r\n", beyond which memcached reads when it is to be incremented.
    values = [b"", b"1", b"10", b"184467440737095516", b"word", b"x\r\ny", b"v" * 3000, b"v" * 70_000]
    ends = [b"\r\n", b"\r\n", b"\r\n", b"\n", b" noreply\r\n", b" \r\n", b" extra\r\n"]

    def one() -> bytes:
        key, end, verb = chance.choice(keys), chance.choice(ends), chance.choice(VERBS)
        if verb in (b"get", b"gets", b"bget"):
            return verb + b"".join(b" " + chance.choice(keys) for _ in range(chance.randint(0, 6))) + b"\r\n"
        if verb in (b"gat", b"gats"):
            return b" ".join([verb, chance.choice(times)] + [chance.choice(keys[:5]) for _ in range(chance.randint(0, 4))]) + b"\r\n"
        if verb in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
            value = chance.choice(values)
            if len(value) > 1000:  # not where it could be taken for a line: memcached hangs up on long ones
                if seed % 2 == 0:
                    return b"get a\r\n"
                return b"%s a 0 0 %d%s\r\n%s\r\n" % (verb, len(value), b" 1" if verb == b"cas" else b"", value)
            length = len(value) + (chance.choice([-1, 1, 3]) if seed % 2 == 0 and chance.random() < 0.05 and value else 0)
            unique = b" " + chance.choice(numbers) if verb == b"cas" else b""
            return b"%s %s %s %s %d%s%s%s\r\n" % (verb, key, chance.choice(numbers), chance.choice(times), length, unique, end, value)
        if verb in (b"incr", b"touch"):
            return b"%s %s %s%s" % (verb, key, chance.choice(times if verb == b"touch" else [b"0", b"1", b"7", b"x"]), end)
        return verb + (b" " + key if verb == b"delete" else b" 1" if verb == b"verbosity" else b"") + end
    return [one() for _ in range(150)]


VERBS = [b"get", b"get", b"gets", b"bget", b"gat", b"gats", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"incr", b"touch",
         b"delete", b"flush_all", b"verbosity", b"nonsense"]


@pytest.mark.parametrize("seed", range(60))
def test_random_session(pair, seed):
    """Request by request."""
    pair.flush()
    memcached, outrigger = Talk(pair.reference), Talk(pair.sidecar)
    assert memcached.wire.ask(b"version\r\n").startswith(b"VERSION ")
    for request in random_session(seed):
        memcached.send(request)
        for _ in range(2):
            pair.to_reference()
            memcached.receive(0)
        outrigger.send(request)
        while outrigger.result() != memcached.result() and outrigger.receive(WAIT):
            pass
        assert outrigger.result() == memcached.result(), request[:300]
    memcached.wire.close()
    outrigger.wire.close()


def test_every_difference_is_met():
    check_table(CASES, DIFFERENCES)
