"""Random streams of commands in the three protocols, for memcached and Outrigger to answer alike. No I/O.

A stream is a list of pieces, a command each: most are good, some nearly. There are few keys, so that commands meet; CAS uniques come from
earlier answers. What differs between any two servers is avoided, not forgiven: times that lapse while a stream runs, statistics, versions,
old and new by CAS uniques that one of the two has not given itself, and numbers that become shorter (memcached's housekeeping decides whether
spaces are left behind them).
"""

import random
import re
from typing import Callable, Dict, List, Tuple

import binary_cases as b
from streams import CAS, CAS_BINARY, HEADER, OWN

KEYS = [b"a", b"b", b"c", b"n", b"n", b"m"]
ODD_KEYS = [b"k" * 250, b"get", b"\xc3\xa4", b"a\tb", b"0", b"noreply"]
BAD_KEYS = [b"k" * 251, b"", b"a b"]
TIMES = [b"0", b"0", b"0", b"1000", b"-1", b"2592001", b"4102444800"]
NUMBERS = [b"0", b"1", b"7", b"100", b"4294967295", b"18446744073709551615"]
VALUES = [b"", b"1", b"10", b"42", b"999", b"18446744073709551614", b"word", b"x\r\ny", b"END\r\n", b"v" * 300, (b"v" * 99 + b"\n") * 50]
#: Lines of the longest are short: how much of a long one has arrived decides what memcached says to it, where it is taken for a command.
STREAM = 24  #: commands at most

Chance = random.Random


def key(chance: Chance) -> bytes:
    draw = chance.random()
    return chance.choice(KEYS if draw < 0.9 else ODD_KEYS if draw < 0.98 else BAD_KEYS)


def value(chance: Chance) -> bytes:
    return chance.choice(VALUES)


def cas(chance: Chance) -> bytes:
    return chance.choice([CAS, CAS, CAS, b"1", b"9223372036854775807", b"x"])


def length(chance: Chance, text: bytes) -> int:
    return max(0, len(text) + (chance.choice([-1, 1, 2]) if chance.random() < 0.02 else 0))


# ---- classic

def classic(chance: Chance) -> bytes:
    verb = chance.choice([b"get", b"gets", b"gets", b"gat", b"gats", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"cas", b"incr", b"incr", b"touch", b"delete", b"flush_all", b"verbosity", b"nonsense"])
    end = chance.choice([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b" noreply\r\n", b" \r\n", b" extra\r\n"])
    if verb in (b"get", b"gets"):
        return verb + b"".join(b" " + key(chance) for _ in range(chance.randint(1, 5))) + b"\r\n"
    if verb in (b"gat", b"gats"):
        return b" ".join([verb, chance.choice(TIMES), *(chance.choice(KEYS) for _ in range(chance.randint(1, 3)))]) + b"\r\n"
    if verb in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
        text = value(chance)
        unique = b" " + cas(chance) if verb == b"cas" else b""
        return b"%s %s %s %s %d%s%s%s\r\n" % (verb, key(chance), chance.choice(NUMBERS[:5]), chance.choice(TIMES), length(chance, text), unique, end, text)
    if verb == b"incr":
        return b"incr %s %s%s" % (key(chance), chance.choice([b"0", b"1", b"7", b"x"]), end)
    if verb == b"touch":
        return b"touch %s %s%s" % (key(chance), chance.choice(TIMES), end)
    return verb + (b" " + key(chance) if verb == b"delete" else b" 1" if verb == b"verbosity" else b"") + end


# ---- meta

LONG_OPAQUE = b" O" + b"x" * 40  #: not for mg and ma: memcached sees that it is too long when it has touched or counted


def encoded(chance: Chance) -> Tuple[bytes, List[bytes]]:
    """A key, and the flags that it needs. Those in base64 are never text ones, and are not asked for: memcached forgets how some came."""
    if chance.random() < 0.15:
        return chance.choice([b"enp6", b"AP8B", b"YSBi", b"enp", b"!"]), [b"b"]
    return key(chance), []


def flags(chance: Chance, choices: Dict[bytes, Callable[[], bytes]], own: List[bytes]) -> bytes:
    chosen = own + [f + choices[f]() for f in chance.sample(sorted(choices), chance.randint(0, min(6, len(choices))))]
    if chance.random() < 0.04:
        chosen.append(chance.choice([b"z", b"v", LONG_OPAQUE[1:], b"\x80", b"Tx", b"Nx", b"Cx", b"S", b"M"]))
    chance.shuffle(chosen)
    return b"".join(b" " + f for f in chosen)


def meta(chance: Chance) -> bytes:
    def nothing() -> bytes:
        return b""

    def opaque() -> bytes:
        return b"%d" % chance.randrange(1000)

    def ttl() -> bytes:
        return chance.choice([b"0", b"1000", b"2000", b"-1"])

    def own() -> bytes:
        return b"%d" % (OWN + chance.randrange(5))

    def unique() -> bytes:
        return cas(chance)
    verb = chance.choice([b"mg"] * 5 + [b"ms"] * 4 + [b"md"] * 2 + [b"ma"] * 2 + [b"mn", b"me", b"mx"])
    if verb == b"mn":
        return b"mn\r\n"
    if verb in (b"me", b"mx"):
        return b"%s %s\r\n" % (verb, key(chance))
    name, needs = encoded(chance)
    answer = {b"O": opaque, b"q": nothing, **({} if needs else {b"k": nothing})}
    if verb == b"mg":
        choices = {**answer, **{f: nothing for f in (b"c", b"f", b"h", b"l", b"s", b"t", b"u", b"v")}, b"E": own, b"N": ttl, b"R": lambda: chance.choice([b"30", b"1500", b"0"]), b"T": ttl}
        return b"mg %s%s\r\n" % (name, flags(chance, choices, needs).replace(LONG_OPAQUE, b""))
    if verb == b"ms":
        text = value(chance)
        choices = {**answer, b"c": nothing, b"s": nothing, b"C": unique, b"E": own, b"F": lambda: chance.choice(NUMBERS[:5]), b"I": nothing, b"M": lambda: chance.choice([b"E", b"A", b"P", b"R", b"S", b"S", b"x"]), b"N": ttl, b"T": ttl}
        size = length(chance, text)
        chosen = flags(chance, choices, needs)
        if size > len(text):  # memcached says only at the value's end that it refuses it, and that end may not come: no flag that it could be refused for
            name, chosen = key(chance), b""
        return b"ms %s %d%s\r\n%s\r\n" % (name, size, chosen, text)
    if verb == b"md":
        return b"md %s%s\r\n" % (name, flags(chance, {**answer, b"C": unique, b"E": own, b"I": nothing, b"T": ttl, b"x": nothing}, needs))
    choices = {**answer, b"c": nothing, b"t": nothing, b"v": nothing, b"C": unique, b"E": own, b"N": ttl, b"T": ttl, b"J": lambda: chance.choice(NUMBERS), b"D": lambda: chance.choice([b"0", b"1", b"7"]), b"M": lambda: chance.choice([b"I", b"+", b"x"])}
    chosen = flags(chance, choices, needs).replace(LONG_OPAQUE, b"")
    if b" N" in chosen:  # memcached answers what it makes although it is to be quiet; a node does not tell the sidecar
        chosen = chosen.replace(b" q", b"")
    return b"ma %s%s\r\n" % (name, chosen)


def text(chance: Chance) -> bytes:
    """Both. Nothing becomes stale: who asks next must know, and a classic command can not tell. No stores of a CAS that the client has
    chosen: when memcached refuses one it gives that CAS to the next classic store."""
    command = (classic if chance.random() < 0.4 else meta)(chance)
    return re.sub(rb" (I|E\d+)(?=[ \r])", b"", command) if command[:3] in (b"md ", b"ms ") else command


# ---- binary

UNKNOWN = [b.VERBOSITY, 0x1f, 0x50, 0xff, b.SASL_LIST]  #: to a memcached without SASL
BINARY_KEYS = KEYS * 4 + [b"a b", b"\0", b"a\r\nb", b"\xff" * 187, b"k" * 250]


def binary(chance: Chance) -> bytes:
    name = chance.choice(BINARY_KEYS)
    unique = chance.choice([0, 0, 0, CAS_BINARY, CAS_BINARY, 1 << 62])
    exptime = chance.choice([0, 0, 0, 1000, 2592001])
    fields = {"opaque": chance.randrange(1 << 32), "unique": unique}
    kind = chance.choice(["get"] * 4 + ["store"] * 4 + ["add to"] * 2 + ["arithmetic"] * 2 + ["touch", "delete", "plain", "unknown"])
    if kind == "get":
        return b.packet(chance.choice([b.GET, b.GETQ, b.GETK, b.GETKQ]), name, **fields)
    if kind == "store":
        return b.store(chance.choice([b.SET, b.SET, b.SETQ, b.ADD, b.ADDQ, b.REPLACE, b.REPLACEQ]), name, value(chance), chance.choice([0, 1, 0xffffffff]), exptime, **fields)
    if kind == "add to":
        return b.packet(chance.choice([b.APPEND, b.APPENDQ, b.PREPEND, b.PREPENDQ]), name, value(chance), **fields)
    if kind == "arithmetic":
        return b.arithmetic(chance.choice([b.INCR, b.INCRQ]), name, chance.choice([0, 1, 7]), chance.choice([0, 5, 2**64 - 1]), chance.choice([0, 1000, b.NEVER]), **fields)
    if kind == "touch":
        return b.touch(chance.choice([b.TOUCH, b.GAT, b.GATQ, b.GATK, b.GATKQ]), name, exptime, **fields)
    if kind == "delete":
        return b.packet(chance.choice([b.DELETE, b.DELETEQ]), name, **fields)
    if kind == "plain":
        return b.packet(chance.choice([b.NOOP, b.NOOP, b.NOOP, b.VERSION, b.FLUSH, b.FLUSHQ]), **fields)
    return b.packet(chance.choice(UNKNOWN), opaque=fields["opaque"])


# ---- nearly valid

def _spoil_text(chance: Chance, command: bytes) -> bytes:
    """Something small in the first line."""
    line, end, rest = command.partition(b"\n")
    words = line.split(b" ")
    at = chance.randrange(len(words))
    # A unique or a time must not become a length or a key.
    what = chance.choice([1, 3, 4]) if CAS in line or re.search(rb"\d{6,}", line) else chance.randrange(5)
    if what == 0:
        words.insert(at, words[at])
    elif what == 1:
        words[at] += chance.choice([b"\0", b"x", b"\x80", b"\t", b" "])
    elif what == 2:
        del words[at]
    elif what == 3:
        words.insert(at, b"")
    else:
        words[at] = words[at].swapcase()
    return b" ".join(words) + end + rest


def _spoil_binary(chance: Chance, command: bytes) -> bytes:
    """Another length, or a wrong byte in the first half of the header. Never a body that is too short for key and extras, since memcached
    waits for those before it says so, nor one that ends earlier than what is sent, since it forgets its answer with what follows, nor one of
    an unknown command that does not come, since it answers that late."""
    at = chance.choice([3, 4, 5, 10, 11, 11])
    spoiled = command[:at] + bytes([chance.choice([0, 1, 4, 8, command[at] ^ 1, 0x80])]) + command[at + 1:]
    _, opcode, key_len, extras_len, _, _, body_len, _, _ = HEADER.unpack_from(spoiled)
    if opcode in UNKNOWN and body_len:
        return command
    return spoiled if key_len + extras_len <= body_len and body_len >= len(command) - HEADER.size else command


def _without_surprises(chance: Chance, pieces: List[bytes]) -> List[bytes]:
    """memcached counts in an entry's place, unless an answer that it has not sent yet holds the entry: then there is a new one that was never
    fetched, is neither stale nor won, and has no CAS of the client's. So no stream has both arithmetic and what tells these apart."""
    numbers = [piece for piece in pieces if piece.startswith((b"ma ", b"incr "))]
    if numbers and chance.random() < 0.5:
        return [piece for piece in pieces if piece not in numbers] or [b"mn\r\n"]
    if numbers:
        kept = [piece for piece in pieces if not piece.startswith(b"me ")]
        return [re.sub(rb" E\d+(?=[ \r])" if piece.startswith(b"ma ") else rb" (?:I|h|R\d+|N-?\d+)(?=[ \r])", b"", piece)
                if piece.startswith((b"mg ", b"ms ", b"md ", b"ma ")) else piece for piece in kept]
    return pieces


KINDS: Dict[str, Callable[[Chance], bytes]] = {"classic": classic, "meta": meta, "text": text, "binary": binary}


def stream(protocol: str, seed: int) -> List[bytes]:
    chance = random.Random(f"{protocol} {seed}")
    pieces = [KINDS[protocol](chance) for _ in range(chance.randint(2, STREAM))]
    if protocol in ("meta", "text"):
        pieces = _without_surprises(chance, pieces)
    if protocol == "binary":
        pieces[0] = b.packet(b.NOOP)  # the first byte of a connection chooses the protocol
    pieces = [piece.replace(CAS, b"1") if b"  " in piece else piece for piece in pieces]  # without its key the unique would be the key
    if chance.random() < 0.3:
        at = chance.randrange(min(1, len(pieces) - 1), len(pieces))
        pieces[at] = (_spoil_binary if protocol == "binary" else _spoil_text)(chance, pieces[at])
        if protocol == "binary" and HEADER.unpack_from(pieces[at])[6] != len(pieces[at]) - HEADER.size:
            del pieces[at + 1:]  # out of step, which memcached finds out when it has an answer to forget
        # What follows may have become part of a value: no uniques in it.
        pieces[at + 1:] = [piece.replace(CAS, b"1").replace(CAS_BINARY, bytes(8)) for piece in pieces[at + 1:]]
    if chance.random() < 0.1:
        # Only its line: while a value is incomplete memcached has not said yet that it refuses it.
        most = len(pieces[-1]) if protocol == "binary" else pieces[-1].find(b"\n")
        pieces[-1] = pieces[-1][:chance.randrange(max(1, most)) + 1]
    return pieces
