"""Streams of commands that are sent to a real memcached and to Outrigger, and what makes their answers comparable. No I/O.

A case starts from a flushed server and on a connection of its own; a server should have stored a few items before the first one, as some
cases take it for granted that an item's CAS unique is not 1. The expected answer is whatever memcached 1.6.38 says at run time.

Two things differ between any two servers, and normalise() replaces only those: CAS uniques, each by its rank in the order of appearance
(those that the client has chosen itself stay), and times that tick, rounded.
"""

import re
import struct
from typing import Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple, Union

#: In a piece: the last CAS unique that was answered before it. A text command has it in decimal, a binary one in its eight bytes.
CAS, CAS_BINARY = b"<CAS>", b"<!CAS!!>"

#: CAS uniques for clients to choose (E): newer than any that a server of either kind takes by itself, since `ms … I` tells old from new.
OWN = 9223372036854770000

HEADER = struct.Struct(">BBHBBHIIQ")  #: of a binary packet: magic, opcode, key length, extras length, data type, status, body length, opaque, CAS


class Case(NamedTuple):
    """`sent`: one piece, or a list of pieces that are sent with a pause between them. Requests behind one that memcached hangs up on are
    pieces of their own: it forgets the answers that it has not sent yet then."""

    name: str
    sent: Union[bytes, List[bytes]]
    notes: str = ""

    @property
    def pieces(self) -> List[bytes]:
        return [self.sent] if isinstance(self.sent, bytes) else self.sent


class Cases(List[Case]):
    """A table of cases; each name only once."""

    def __init__(self) -> None:
        super().__init__()
        self._names: Set[str] = set()

    def __call__(self, name: str, sent: Union[bytes, List[bytes]], notes: str = "") -> None:
        assert name not in self._names, name
        self._names.add(name)
        self.append(Case(name, sent, notes))


def slug(text: bytes) -> str:
    """For names of cases: what is sent, but short."""
    return re.sub(r"(.)\1{9,}", lambda m: f"{m[1]}{len(m[0])}", text.decode("latin-1")).encode("unicode_escape").decode().replace(" ", "_")


class _Ranks:
    """CAS uniques to their ranks, but for 0, which is none, and those in `kept`."""

    def __init__(self, kept: Iterable[int] = ()):
        self._kept = {0, *kept}
        self._seen: Dict[int, int] = {}

    def __call__(self, unique: int) -> bytes:
        return b"%d" % unique if unique in self._kept else b"#%d" % self._seen.setdefault(unique, len(self._seen) + 1)


def _left(seconds: int) -> bytes:
    """Seconds that are left; memcached shows those of an item that has expired already as a huge number."""
    return b"past" if seconds >= 1 << 31 else b"<=%d" % (-(-seconds // 10) * 10)


class Text:
    """Classic and meta."""

    hello, hello_end = b"version\r\n", b"\r\n"
    _HEAD = re.compile(rb"VALUE [^ ]+ \d+ (\d+)(?: \d+)?\r?\n|VA (\d+)[ \r]")
    _VALUE = re.compile(rb"(VALUE [^ ]+ \d+ \d+ )(\d+)(?=\r\n\Z)")
    _ME = re.compile(rb"( exp=)(-?\d+)( la=)(\d+)( cas=)(\d+)(?= fetch=\w+ cls=\d+ size=\d+\r\n\Z)")

    @classmethod
    def _lines(cls, answer: bytes) -> Iterator[Tuple[bytes, bytes]]:
        """Every line, with the value that follows it."""
        at = 0
        while at < len(answer):
            end = answer.find(b"\n", at) + 1 or len(answer)
            line, at = answer[at:end], end
            head = cls._HEAD.match(line)
            length = int(head[1] or head[2]) + 2 if head else 0
            yield line, answer[at:at + length]
            at += length

    @classmethod
    def normalise(cls, answer: bytes, sent: bytes = b"") -> bytes:
        rank = _Ranks(int(n) for n in re.findall(rb" E(\d{19,20})\b", sent))

        def flag(word: bytes) -> bytes:
            if word[:1] not in b"ctl" or not word[1:].isdigit():
                return word
            number = int(word[1:])
            return word[:1] + (rank(number) if word[:1] == b"c" else _left(number) if word[:1] == b"t" else b">=%d" % (number // 10 * 10))

        normal = []
        for line, value in cls._lines(answer):
            if line.startswith(b"VALUE "):
                line = cls._VALUE.sub(lambda m: m[1] + rank(int(m[2])), line)
            elif line.startswith(b"ME "):
                line = cls._ME.sub(lambda m: m[1] + (m[2] if m[2] == b"-1" else _left(int(m[2]) % (1 << 32))) + m[3] + b"%d" % (int(m[4]) // 10 * 10)
                                   + m[5] + rank(int(m[6])), line)
            elif line[:3] in (b"HD ", b"VA "):
                end = line[len(line.rstrip(b"\r\n")):]
                line = b" ".join(flag(word) for word in line[:len(line) - len(end)].split(b" ")) + end
            normal += [line, value]
        return b"".join(normal)

    @classmethod
    def substitute(cls, piece: bytes, answer: bytes) -> bytes:
        last = b"1"
        for line, _ in cls._lines(answer):
            found = cls._VALUE.match(line) or re.search(rb" cas=()(\d+)", line) or re.search(rb"\A(?:HD|VA).* (c)(\d+)", line)
            last = found[2] if found else last
        return piece.replace(CAS, last)


class Binary:
    """Answers become lines, to be readable. `stat` is its end packet only, and of the version what Outrigger has in front of its own."""

    hello, hello_end = HEADER.pack(0x80, 0x0a, 0, 0, 0, 0, 0, 0xabcdef01, 0), b"\xab\xcd\xef\x01" + bytes(8)
    _STAT, _VERSION = 0x10, 0x0b

    @classmethod
    def _packets(cls, answer: bytes) -> Iterator[Tuple[tuple, bytes]]:
        """Every packet: header and body; what is no packet, or not all of one, has no header."""
        at = 0
        while len(answer) - at >= HEADER.size and answer[at] == 0x81:
            header = HEADER.unpack_from(answer, at)
            if len(answer) - at - HEADER.size < header[6]:
                break
            at += HEADER.size + header[6]
            yield header, answer[at - header[6]:at]
        if at < len(answer):
            yield (), answer[at:]

    @classmethod
    def normalise(cls, answer: bytes, sent: bytes = b"") -> bytes:
        del sent
        rank, lines = _Ranks(), []
        for header, body in cls._packets(answer):
            if not header:
                lines.append(repr(body).encode())
                continue
            _, opcode, key_len, extras_len, datatype, status, body_len, opaque, unique = header
            if opcode == cls._STAT and key_len:
                continue
            if opcode == cls._VERSION and not status:
                body = body[:6]
                body_len = len(body)
            lines.append(b"op %02x status %02x lengths %d %d %d type %d opaque %08x cas %s %s" % (
                opcode, status, key_len, extras_len, body_len, datatype, opaque, rank(unique), repr(body).encode()))
        return b"\n".join(lines)

    @classmethod
    def substitute(cls, piece: bytes, answer: bytes) -> bytes:
        uniques = [header[8] for header, _ in cls._packets(answer) if header and header[8]]
        return piece.replace(CAS_BINARY, struct.pack(">Q", uniques[-1] if uniques else 1))
