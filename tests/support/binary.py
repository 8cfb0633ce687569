"""A small client of memcached's binary protocol: packets as they are, nothing hidden, nothing mended."""

import struct
from typing import Dict, List, NamedTuple, Optional

REQUEST, REPLY = 0x80, 0x81
HEAD = struct.Struct(">BBHBBHIIQ")
NO_CREATION = 0xFFFFFFFF

OPCODES: Dict[str, int] = {name: code for code, name in enumerate(
    "get set add replace delete incr decr quit flush getq noop version getk getkq append prepend stat setq addq replaceq deleteq incrq decrq quitq "
    "flushq appendq prependq verbosity touch gat gatq".split())}
OPCODES.update(sasl_list=0x20, sasl_auth=0x21, sasl_step=0x22, gatk=0x23, gatkq=0x24)
NAMES = {code: name for name, code in OPCODES.items()}

OK, NOT_FOUND, EXISTS, TOO_LARGE, INVALID, NOT_STORED, NON_NUMERIC = range(7)
AUTH_ERROR, UNKNOWN, NO_MEMORY, TEMPORARY = 0x20, 0x81, 0x82, 0x86


def packet(opcode, key: bytes = b"", value: bytes = b"", extras: bytes = b"", cas: int = 0, opaque: int = 0, magic: int = REQUEST,
           key_len: Optional[int] = None, extras_len: Optional[int] = None, body_len: Optional[int] = None) -> bytes:
    """The lengths are the true ones, unless others are given."""
    code = OPCODES[opcode] if isinstance(opcode, str) else opcode
    body = extras + key + value
    return HEAD.pack(magic, code, len(key) if key_len is None else key_len, len(extras) if extras_len is None else extras_len, 0, 0,
                     len(body) if body_len is None else body_len, opaque, cas) + body


def get(key: bytes, opcode: str = "get", **more) -> bytes:
    return packet(opcode, key, **more)


def store(opcode: str, key: bytes, value: bytes, flags: int = 0, exptime: int = 0, **more) -> bytes:
    """set, add, replace and their quiet forms."""
    return packet(opcode, key, value, struct.pack(">II", flags, exptime), **more)


def concat(opcode: str, key: bytes, value: bytes, **more) -> bytes:
    return packet(opcode, key, value, **more)


def count(opcode: str, key: bytes, delta: int = 1, initial: int = 0, exptime: int = NO_CREATION, **more) -> bytes:
    return packet(opcode, key, b"", struct.pack(">QQI", delta, initial, exptime), **more)


def touch(opcode: str, key: bytes, exptime: int, **more) -> bytes:
    """touch, gat, gatq, gatk, gatkq."""
    return packet(opcode, key, b"", struct.pack(">I", exptime), **more)


class Reply(NamedTuple):
    opcode: int
    status: int
    extras: bytes
    key: bytes
    value: bytes
    cas: int
    opaque: int

    @property
    def flags(self) -> int:
        return int.from_bytes(self.extras, "big")

    @property
    def number(self) -> int:
        assert len(self.value) == 8, self
        return int.from_bytes(self.value, "big")


class Client:
    """`wire` has send(bytes) and read(count)."""

    def __init__(self, wire):
        self.wire = wire

    def send(self, *packets: bytes) -> "Client":
        self.wire.send(b"".join(packets))
        return self

    def reply(self) -> Optional[Reply]:
        """None at the end of the connection."""
        head = self.wire.read(HEAD.size)
        if head == b"":
            return None
        assert len(head) == HEAD.size, head
        magic, opcode, key_len, extras_len, datatype, status, body_len, opaque, cas = HEAD.unpack(head)
        assert magic == REPLY and datatype == 0 and key_len + extras_len <= body_len, head
        body = self.wire.read(body_len)
        assert len(body) == body_len
        key_end = extras_len + key_len
        return Reply(opcode, status, body[:extras_len], body[extras_len:key_end], body[key_end:], cas, opaque)

    def ask(self, *packets: bytes) -> Reply:
        """Sends, and returns the one reply that this must have."""
        reply = self.send(*packets).reply()
        assert reply is not None, "the connection has been closed"
        return reply

    def all(self, *packets: bytes) -> List[Reply]:
        """Every reply up to that of a noop which is sent behind the packets, or up to the end of the connection: then the last one is None."""
        self.send(*packets, packet("noop", opaque=0xFFFFFFFF))
        replies: List[Reply] = []
        while True:
            reply = self.reply()
            if reply is None or (reply.opcode == OPCODES["noop"] and reply.opaque == 0xFFFFFFFF):
                return replies + [None] if reply is None else replies
            replies.append(reply)
