"""Streams of binary commands, to be sent to a real memcached and to Outrigger: both must answer alike.

CAS_BINARY in a piece is the CAS unique that was answered last; a piece that has it begins a new one, since the answer is waited for.
"""

import struct

from streams import CAS_BINARY, Cases, HEADER, slug

CASES = case = Cases()

(GET, SET, ADD, REPLACE, DELETE, INCR, DECR, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ, APPEND, PREPEND, STAT, SETQ, ADDQ, REPLACEQ, DELETEQ,
 INCRQ, DECRQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ, VERBOSITY, TOUCH, GAT, GATQ) = range(0x1f)
SASL_LIST, SASL_AUTH, SASL_STEP, GATK, GATKQ = 0x20, 0x21, 0x22, 0x23, 0x24
NEVER = 0xffffffff  #: the expiry with which arithmetic creates nothing


def packet(opcode, key=b"", value=b"", extras=b"", *, unique=0, opaque=0x01020304, magic=0x80, key_len=None, extras_len=None, body_len=None, datatype=0, vbucket=0):
    """One request; its lengths are true unless they are given."""
    body = extras + key + value
    header = HEADER.pack(magic, opcode, len(key) if key_len is None else key_len, len(extras) if extras_len is None else extras_len, datatype, vbucket,
                         len(body) if body_len is None else body_len, opaque, 0 if isinstance(unique, bytes) else unique)
    return (header[:-8] + unique if isinstance(unique, bytes) else header) + body


def store(opcode, key, value, flags=0, exptime=0, **fields):
    return packet(opcode, key, value, struct.pack(">II", flags, exptime), **fields)


def arithmetic(opcode, key, delta=1, initial=0, exptime=0, **fields):
    return packet(opcode, key, b"", struct.pack(">QQI", delta, initial, exptime), **fields)


def touch(opcode, key, exptime=0, **fields):
    return packet(opcode, key, b"", struct.pack(">I", exptime), **fields)


def get(key, opcode=GETK, **fields):
    return packet(opcode, key, **fields)


NOW = packet(NOOP)
A = store(SET, b"a", b"A", 7)
N = store(SET, b"n", b"10")
K250, K251 = b"k" * 250, b"k" * 251
#: May be anything in binary. A node carries such a key in base64, 250 bytes at most: so 187 bytes of it.
KEYS = {"space": b"a b", "nul": b"a\0b", "nul-only": b"\0", "newline": b"a\nb", "crlf": b"\r\n", "high": b"\x80\xff", "tab": b"\t", "text": b"get a\r\n", "187": b"\n" * 187,
        "250": K250, "one": b"x"}

# ---- every command on a hit and on a miss

COMMANDS = {
    "get": get(b"a", GET), "getk": get(b"a"), "getq": get(b"a", GETQ), "getkq": get(b"a", GETKQ),
    "touch": touch(TOUCH, b"a", 100), "gat": touch(GAT, b"a", 100), "gatq": touch(GATQ, b"a", 100), "gatk": touch(GATK, b"a", 100), "gatkq": touch(GATKQ, b"a", 100),
    "gat-past": touch(GAT, b"a", 2592001), "touch-past": touch(TOUCH, b"a", 2592001), "gat-4294967295": touch(GAT, b"a", 0xffffffff), "gat-0": touch(GAT, b"a"),
    "delete": packet(DELETE, b"a"), "deleteq": packet(DELETEQ, b"a"),
    "append": packet(APPEND, b"a", b">"), "appendq": packet(APPENDQ, b"a", b">"), "prepend": packet(PREPEND, b"a", b"<"), "prependq": packet(PREPENDQ, b"a", b"<"),
    "append-nothing": packet(APPEND, b"a"), "append-4000": packet(APPEND, b"a", b"x" * 4000),
}
for name, opcode in (("set", SET), ("setq", SETQ), ("add", ADD), ("addq", ADDQ), ("replace", REPLACE), ("replaceq", REPLACEQ)):
    COMMANDS[name] = store(opcode, b"a", b"BB", 0xdeadbeef)
    COMMANDS[name + "-empty"] = store(opcode, b"a", b"")
    COMMANDS[name + "-expires"] = store(opcode, b"a", b"C", 1, 100)
    COMMANDS[name + "-past"] = store(opcode, b"a", b"C", 1, 2592001)
    COMMANDS[name + "-4294967295"] = store(opcode, b"a", b"C", 1, 0xffffffff)
    COMMANDS[name + "-8k"] = store(opcode, b"a", b"v" * 8192, 1)
for name, opcode in (("incr", INCR), ("incrq", INCRQ), ("decr", DECR), ("decrq", DECRQ)):
    for what, arguments in (("1", (1, 5)), ("0", (0, 5)), ("never", (1, 5, NEVER)), ("expires", (1, 5, 100)), ("past", (1, 5, 2592001)), ("max", (2**64 - 1, 2**64 - 1)), ("high", (2**63, 2**63))):
        COMMANDS[f"{name}-{what}"] = arithmetic(opcode, b"a", *arguments)
for name, command in COMMANDS.items():
    after = NOW + get(b"a") + packet(DELETE, b"a") + NOW
    case(name + "-miss", command + after)
    case(name + "-hit", A + command + after)
    if "-" in name and not name.endswith(("-1", "-never")):
        continue
    case(name + "-number", store(SET, b"a", b"95") + command + after)
    case(name + "-same-cas", [A + get(b"a"), command[:16] + CAS_BINARY + command[24:] + after])
    case(name + "-other-cas", [A + get(b"a") + A, command[:16] + struct.pack(">Q", 1 << 63) + command[24:] + after])
    case(name + "-cas-miss", command[:16] + struct.pack(">Q", 12345) + command[24:] + after)
    case(name + "-opaque", A + command[:12] + b"\xff\0\r\n" + command[16:] + after)
for name, key in KEYS.items():
    case("key-" + name, store(SET, key, b"1", 3) + get(key) + get(key, GET) + get(key, GETKQ) + packet(APPEND, key, b"2") + packet(PREPEND, key, b"3") + arithmetic(INCR, key) + touch(GATK, key)
         + touch(TOUCH, key) + store(ADD, key, b"4") + store(REPLACE, key, b"5") + get(key) + packet(DELETE, key) + get(key) + get(key, GET) + get(key, GETKQ) + packet(DELETE, key)
         + arithmetic(INCR, key, 1, 7) + arithmetic(DECR, key, 3) + get(key) + touch(GATKQ, key) + NOW)
case("key-two-spellings", store(SET, b"Zm9v", b"text") + store(SET, b"foo", b"decoded") + get(b"Zm9v") + get(b"foo"))
case("key-too-long", [A, get(K251), NOW])
for name, command in (("set", store(SET, K251, b"x")), ("setq", store(SETQ, K251, b"x")), ("delete", packet(DELETE, K251)), ("incr", arithmetic(INCR, K251)), ("append", packet(APPEND, K251, b"x")),
                      ("touch", touch(TOUCH, K251)), ("stat", packet(STAT, K251)), ("65535", get(b"k" * 65535)), ("unknown", packet(0x50, K251)), ("gatq", touch(GATQ, K251))):
    case("key-too-long-" + name, [A, command, NOW])

# ---- lengths that are wrong

SHAPES = {"get": get(b"a", GET), "getkq": get(b"a", GETKQ), "set": A, "setq": store(SETQ, b"a", b"A"), "add": store(ADD, b"a", b"A"), "replace": store(REPLACE, b"a", b"A"), "delete": packet(DELETE, b"a"),
          "deleteq": packet(DELETEQ, b"a"), "incr": arithmetic(INCR, b"n"), "decrq": arithmetic(DECRQ, b"n"), "append": packet(APPEND, b"a", b"B"), "prependq": packet(PREPENDQ, b"a", b"B"), "touch": touch(TOUCH, b"a"),
          "gat": touch(GAT, b"a"), "gatkq": touch(GATKQ, b"a"), "noop": NOW, "version": packet(VERSION), "quit": packet(QUIT), "quitq": packet(QUITQ), "flush": packet(FLUSH), "flushq": packet(FLUSHQ),
          "stat": packet(STAT), "verbosity": packet(VERBOSITY, extras=bytes(4)), "unknown": packet(0x50), "sasl-list": packet(SASL_LIST), "sasl-auth": packet(SASL_AUTH, b"PLAIN", b"\0user\0pass"),
          "sasl-step": packet(SASL_STEP, b"PLAIN", b"\0user\0pass")}


def shaped(command, key=None, extras=None, value=None):
    """The same command with other parts."""
    _, opcode, key_len, extras_len, _, _, _, opaque, _ = HEADER.unpack_from(command)
    body = command[HEADER.size:]
    return packet(opcode, body[extras_len:extras_len + key_len] if key is None else key, body[extras_len + key_len:] if value is None else value, body[:extras_len] if extras is None else extras, opaque=opaque)


for name, command in SHAPES.items():
    _, opcode, key_len, extras_len, _, _, body_len, _, _ = HEADER.unpack_from(command)
    case("shape-" + name, [A + N, command, NOW + get(b"a")])
    for size in {0, 3, 4, 5, 8, 20, 21, 255} - {extras_len}:
        case(f"extras-{size}-{name}", [A + N, shaped(command, extras=bytes(size)), NOW])
    if key_len:
        case("no-key-" + name, [A + N, shaped(command, key=b""), NOW])
    elif opcode not in (STAT, 0x50, VERBOSITY):
        case("a-key-" + name, [A + N, shaped(command, key=b"a"), NOW])
    if opcode not in (SET, SETQ, ADD, REPLACE, APPEND, PREPENDQ, STAT, 0x50, VERBOSITY, SASL_AUTH, SASL_STEP, TOUCH, GAT, GATKQ):
        case("a-value-" + name, [A + N, shaped(command, value=b"value"), NOW])
    if key_len + extras_len:
        case("body-too-short-" + name, [A + N, command[:8] + struct.pack(">I", key_len + extras_len - 1) + command[12:], NOW])
    case("datatype-" + name, [A + N, command[:5] + b"\x01" + command[6:], NOW])
    case("vbucket-" + name, [A + N, command[:6] + b"\x12\x34" + command[8:], NOW])
    case("unfinished-header-" + name, [A, command[:23]])
    if body_len > 1:
        case("unfinished-body-" + name, [A, command[:-1]])
for name, command in (("touch", touch(TOUCH, b"a")), ("gat", touch(GAT, b"a")), ("gatkq", touch(GATKQ, b"a")), ("stat", packet(STAT))):
    case("a-value-" + name, [A, shaped(command, value=b"value"), NOW], "the value is taken for the next header, and is none")
    case("a-request-for-a-value-" + name, [A, shaped(command, value=NOW), NOW])
for opcode in (VERBOSITY, 0x1f, 0x25, 0x3d, 0x50, 0xff):
    case(f"unknown-{opcode:02x}", A + packet(opcode) + packet(opcode, value=b"body") + packet(opcode, value=b"x" * 5000) + get(b"a"))
    case(f"unknown-key-{opcode:02x}", [A, packet(opcode, b"a"), get(b"a"), NOW], "memcached swallows the key twice")
for name, number in (("ffffffff", 0xffffffff), ("80000000", 0x80000000), ("7fffffff", 0x7fffffff), ("7ffffff0", 0x7ffffff0)):
    case("body-" + name, [A, store(SET, b"a", b"x", body_len=number), NOW], "lengths of 2 GiB and more are negative to memcached")
for magic in (0x00, 0x67, 0x81, 0xff):
    case(f"magic-{magic:02x}", [A + get(b"a"), packet(NOOP, magic=magic), NOW])
case("text-in-between", [A, b"get a\r\nget a\r\nget a\r\nget a\r\n", NOW])
case("short-text-in-between", [A, b"get a\r\n"], "no header yet")

# ---- values

for size in (1, 2, 100, 4095, 4096, 4097, 65536, 1000000):
    case(f"value-{size}", store(SET, b"v", b"x" * size, 9) + get(b"v", GET) + get(b"v", GETKQ) + touch(GATK, b"v") + packet(APPEND, b"v", b"y") + get(b"v") + NOW)
for name, opcode in (("set", SET), ("setq", SETQ), ("add", ADD), ("addq", ADDQ), ("replace", REPLACE), ("append", APPEND), ("appendq", APPENDQ), ("prepend", PREPEND)):
    large = packet(opcode, b"a", b"x" * 1048577) if opcode in (APPEND, APPENDQ, PREPEND) else store(opcode, b"a", b"x" * 1048577)
    case("too-large-" + name, [A, large, get(b"a") + NOW])
case("append-becomes-too-large", [store(SET, b"v", b"x" * 1000000), packet(APPEND, b"v", b"y" * 100000), get(b"v", GET), packet(PREPENDQ, b"v", b"y" * 100000), NOW])
for value in (b"", b"0", b" 7  ", b"7 ", b"x7", b"7x", b"-1", b"18446744073709551615", b"18446744073709551616", b"0" * 19 + b"7", b"0" * 30):
    number = store(SET, b"n", value)
    case("number-" + slug(value), number + arithmetic(INCR, b"n") + get(b"n") + number + arithmetic(DECR, b"n", 2) + get(b"n") + number + arithmetic(INCRQ, b"n", 2**64 - 1) + get(b"n") + NOW)
case("flags", b"".join(store(SET, b"f", b"x", flags) + get(b"f") for flags in (0, 1, 0x7fffffff, 0x80000000, 0xffffffff)))
case("flags-kept", store(SET, b"f", b"1", 5) + packet(APPEND, b"f", b"2") + get(b"f") + arithmetic(INCR, b"f") + get(b"f") + touch(GAT, b"f", 100) + get(b"f"))

# ---- CAS

SAME = {"unique": CAS_BINARY}
case("cas-chain", [A, store(SET, b"a", b"B", **SAME), store(REPLACE, b"a", b"C", **SAME), packet(APPEND, b"a", b"D", **SAME), packet(PREPEND, b"a", b"E", **SAME), get(b"a"), packet(DELETE, b"a", **SAME), NOW + get(b"a")])
case("cas-number", [N, arithmetic(INCR, b"n", **SAME), arithmetic(DECRQ, b"n", **SAME), arithmetic(INCR, b"n", **SAME), get(b"n"), packet(DELETEQ, b"n", **SAME), NOW])
case("cas-created", [arithmetic(INCR, b"n", 1, 5), store(SET, b"n", b"7", **SAME), get(b"n")])
case("cas-of-get", [A + get(b"a", GET), store(SETQ, b"a", b"B", **SAME), NOW + get(b"a")])
case("cas-of-gat", [A + touch(GAT, b"a", 100), store(SETQ, b"a", b"B", **SAME), NOW + get(b"a") + touch(TOUCH, b"a", 100)])
case("cas-of-touch", [A + touch(TOUCH, b"a", 100), store(ADD, b"a", b"B", **SAME), get(b"a")])
case("cas-get", [A, get(b"a", GET, **SAME), get(b"a", unique=5), touch(GAT, b"a", unique=5), NOW + packet(NOOP, unique=9) + packet(VERSION, unique=9)])

# ---- pipelines and the rest

case("pipeline", (A + get(b"a", GETKQ) + get(b"x", GETQ) + store(SETQ, b"b", b"B") + packet(DELETEQ, b"x") + arithmetic(INCRQ, b"c", 1, 5) + get(b"b", GETQ) + packet(NOOP, opaque=99)) * 30)
case("quiet-multi-get", store(SETQ, b"k7", b"7") + store(SETQ, b"k99", b"99") + b"".join(get(b"k%d" % i, GETKQ, opaque=i) for i in range(500)) + packet(NOOP, opaque=0xffffffff))
case("quiet-without-an-end", store(SETQ, b"a", b"1") + get(b"x", GETQ))
case("quiet-with-an-end", store(SETQ, b"a", b"1") + get(b"x", GETQ) + get(b"a", GETQ))
case("quiet-failures", A + store(ADDQ, b"a", b"B") + store(REPLACEQ, b"x", b"B") + packet(APPENDQ, b"x", b"B") + packet(DELETEQ, b"x") + arithmetic(INCRQ, b"a") + arithmetic(DECRQ, b"x", 1, 1, NEVER)
     + store(SETQ, b"a", b"B", unique=1 << 62) + touch(GATQ, b"x") + touch(GATKQ, b"x") + NOW)
case("flush", A + packet(FLUSH) + get(b"a", GET) + A + packet(FLUSHQ) + get(b"a", GET) + A + packet(FLUSH, extras=bytes(4)) + get(b"a", GET) + A + packet(FLUSHQ, extras=bytes(4)) + get(b"a") + NOW)
case("flush-later", A + packet(FLUSH, extras=struct.pack(">I", 100)) + packet(FLUSHQ, extras=struct.pack(">I", 100)) + NOW)
case("quit", A + packet(QUIT) + get(b"a"))
case("quitq", A + get(b"a") + packet(QUITQ) + get(b"a"))
case("version", packet(VERSION, opaque=7) + NOW)
case("stat", packet(STAT, opaque=7) + NOW)
for word in (b"reset", b"settings", b"foo", b"resets", b"detail", b"detail foo", b"conns"):
    case("stat-" + slug(word), packet(STAT, word, opaque=7) + NOW)
case("verbosity", packet(VERBOSITY, extras=bytes(4)) + NOW)
case("sasl", packet(SASL_LIST) + packet(SASL_AUTH, b"PLAIN", b"\0user\0pass") + packet(SASL_STEP, b"PLAIN", b"\0user\0pass") + packet(SASL_AUTH, b"X" * 40) + packet(SASL_AUTH, b"PLAIN", b"x" * 9000) + NOW)
