"""Streams of meta commands, to be sent to a real memcached and to Outrigger: both must answer alike.

CAS in a piece is the CAS unique that was answered last; a piece that has it begins a new one, since the answer is waited for.
"""

import base64

import streams
from streams import CAS, Cases, slug

CASES = case = Cases()

K250, K251 = b"k" * 250, b"k" * 251
A = b"ms a 1 F1\r\nA\r\n"
AT = b"ms a 1 T100\r\nA\r\n"
N = b"ms n 2\r\n10\r\n"
SEE = b"mg a v f c s t\r\n"
E1, E2, E3 = (b"%d" % (streams.OWN + i) for i in (1, 2, 3))


def b64(key):
    return base64.b64encode(key)


def table(prefix, lines, around):
    """A case for each line, in `around`, whose %s it is."""
    for line in lines:
        case(prefix + slug(line), around % line if isinstance(around, bytes) else [piece % line if b"%s" in piece else piece for piece in around])


# ---- mg

MG = [b"", b"v", b"f", b"c", b"s", b"t", b"h", b"l", b"k", b"u", b"b", b"q", b"O1", b"Oabc", b"O", b"O" + b"x" * 31, b"N30", b"N0", b"N-1", b"R30",
      b"R200", b"R0", b"R-1", b"T200", b"T0", b"T-1", b"E" + E1, b"v f c s t h l k O1", b"k O1 v", b"t s c f v", b"v k q", b"T200 t", b"t T200", b"T0 t",
      b"T-1 t", b"N30 t c v", b"N30 T200 t", b"N30 R200", b"N30 E" + E1 + b" c", b"E" + E1 + b" c N30 v", b"R200 v c", b"u h l", b"h u", b"h l t", b"s v",
      b"M", b"I", b"x", b"q k", b"q O7 k v", b"N30 q", b"C1", b"F1", b"D1", b"J1", b"MS", b"S", b"P", b"Lx", b"Px y"]
table("mg-miss-", MG, b"mg a %s\r\nmn\r\nmg a v s t h\r\nmg a v s t h\r\n")
table("mg-hit-", MG, AT + b"mg a %s\r\nmn\r\nmg a v s t h\r\nmg a v s t h\r\n")
table("mg-forever-", [f for f in MG if f[:1] in (b"R", b"T", b"N", b"t")], A + b"mg a %s\r\nmg a v s t h\r\n")
table("mg-bad-", [b"v v", b"k v k", b"O1 O2", b"N30 N30", b"T1 T2", b"z", b"W", b"X", b"Z", b"0", b"-", b"!", b"v z", b"z v", b"vv", b"vx", b"cx", b"kO", b"qq",
                  b"\x7f", b"\x80", b"\xff", b"v\x80", b"N", b"T", b"R", b"Nx", b"Tx", b"Rx", b"N1x", b"N99999999999", b"T-99999999999", b"Tx v v", b"Cx", b"Ex",
                  b"E", b"E-1", b"E18446744073709551616", b"Dx", b"Jx", b"M", b"MSS", b"Fx", b"F-1", b"O" + b"x" * 32, b"N30 O" + b"x" * 32,
                  b"T5 O" + b"x" * 40 + b" v", b"q O" + b"x" * 32, b"q z", b"q v v", b"b", b"v\tc", b"v\0c", b"\0", b"NaN", b"T 5"],
      A + b"mg a %s\r\nmn\r\nmg a v t\r\n")
for count in range(14, 24):
    flags = [b"v", b"f", b"c", b"s", b"t", b"h", b"l", b"k", b"u", b"q", b"O1", b"T100", b"R1", b"N1", b"x", b"I", b"M+", b"D1", b"J1", b"C1", b"F1", b"P", b"L"][:count]
    case(f"mg-flags-{count}", A + b"mg a " + b" ".join(flags) + b"\r\nmn\r\n")
    case(f"md-flags-{count}", A + b"md a " + b" ".join(flags) + b"\r\nmn\r\n")
    case(f"ma-flags-{count}", N + b"ma n " + b" ".join(flags) + b"\r\nmn\r\n")
    case(f"ms-flags-{count}", b"ms a 1 " + b" ".join(flags) + b"\r\nA\r\nmn\r\n")
for line in (b"mg", b"mg ", b"mg  a v", b"mg a  v   c", b" mg a v", b"mg a v ", b"mg\ta v", b"mg a\tv", b"mg a v\r", b"mg\0 a v", b"mg a\0 v", b"MG a v", b"mgg a v",
             b"mg a v noreply", b"mg noreply v", b"mg a", b"mg get v", b"mg v v", b"mg " + K250 + b" v k", b"mg " + K251 + b" v", b"mg " + K251,
             b"mg " + K251 + b" q", b"mg " + K250 + b" O" + b"x" * 31 + b" k f t s v c"):
    case("mg-line-" + slug(line), A + line + b"\r\nmn\r\n")
case("mg-bare-newline", b"mg a v\nms a 1\nA\r\nmg a v\nmn\n")
case("mg-empty-value", b"ms e 0\r\n\r\nmg e v s\r\nmg e s v f k\r\n")
case("mg-values", b"ms v 10\r\n\r\nEND\r\nVA\r\nmg v v\r\nms v 4\r\n\0\xff\n\x80\r\nmg v v k\r\n")
case("mg-large", b"ms v 9000 F7\r\n" + b"v" * 9000 + b"\r\nmg v v f s\r\nmg v s\r\nmg v v q\r\nmn\r\n")
case("mg-fetched", A + b"mg a u h\r\nmg a u h l v\r\nmg a h\r\nmg a h\r\nget a\r\nmg a h\r\n" + A + b"mg a h\r\n")
case("mg-pipeline", A + b"mg a v O1\r\nmg x v O2\r\nmg a k O3 q\r\nmg x k O4 q\r\nmg a v O5 q\r\nmn\r\n" * 5)
case("mg-many", A + b"".join(b"mg %s v q k O%d\r\n" % (b"a" if i % 3 == 0 else b"x", i) for i in range(200)) + b"mn\r\n")
case("quiet-errors", A + b"mg a q z\r\nmg x q\r\nms a 1 q z\r\nA\r\nmd x q v v\r\nma a q\r\nma n q Mx\r\nmn\r\n")
case("quiet-only", A + b"mg x q\r\nms b 1 q\r\nB\r\nmd b q\r\n", "no answer at all")
case("quiet-then-not", b"mg x q\r\nmg x\r\nms b 1 q\r\nB\r\nms b 1\r\nB\r\nmd x q\r\nmd x\r\nmn\r\n")
case("no-op", b"mn\r\nmn \r\n mn\r\nmn x y z\r\nmn\nmno\r\nm n\r\nmn\r\n")
for line in (b"mx a", b"mm", b"m a", b"mG a", b"mz\r\nmn", b"mgat a", b"m", b"me", b"ma", b"md", b"ms"):
    case("word-" + slug(line), line + b"\r\nmn\r\n")
case("long-line-mg", [b"mg " + b"x" * 3000, b"\r\n"])
case("long-line-mg-flags", [b"mg a O" + b"x" * 1900 + b"\r\nmn\r\n"])
case("long-line-ms", [b"ms a 1 O" + b"x" * 3000, b"\r\nA\r\n"])
case("long-opaque-is-fine", b"mg " + K250 + b" N30 k O" + b"y" * 31 + b"\r\nmg " + K250 + b" k O" + b"y" * 31 + b" v c t s f h l\r\n")

# ---- base64 keys

for name, key in (("foo", b"foo"), ("space", b"a b"), ("nul", b"a\0b"), ("newline", b"a\nb"), ("crlf", b"a\r\nmn"), ("high", b"\xff\xfe"), ("one", b"x"), ("two", b"xy"),
                  ("187", b"\x80" * 187), ("180", b"k" * 180), ("186", b"k" * 186)):
    encoded = b64(key)
    case("b64-" + name, b"ms %s 1 b\r\nA\r\nmg %s b v k\r\nmg %s b c k O1\r\nms %s 2 b k q\r\nAA\r\nme %s b\r\nms %s 1 b k MA O2\r\nB\r\nms %s 1 b k ME\r\nC\r\n"
         b"md %s b k O3\r\nmd %s b k q\r\nma %s b k N0 J5 v\r\nma %s b k v\r\nmn\r\n" % ((encoded,) * 11))
    case("b64-miss-" + name, b"mg %s b k\r\nmg %s b q k\r\nmd %s b k\r\nma %s b k\r\nms %s 1 b k MA\r\nA\r\nme %s b\r\nmn\r\n" % ((encoded,) * 6))
    case("b64-text-" + name, b"ms %s 1 b\r\nA\r\nmg %s v k\r\nms %s 1 k\r\nB\r\nmg %s v k\r\nmg %s b v k\r\n" % ((encoded,) * 5), "two different keys")
for name, key in (("foo", b"foo"), ("high", b"\xff\xfe\x80"), ("space", b"a b"), ("newline", b"a\nb"), ("crlf", b"a\r\nb")):
    case("b64-vivified-" + name, [b"mg %s b N30 c k\r\n" % b64(key), b"mn\r\n", b"mg %s b k v\r\nma %s b k v\r\nmn\r\n" % (b64(key), b64(key))],
         "memcached forgets that such a key was base64 and shows it raw")
case("b64-of-a-text-key", b"ms foo 1\r\nA\r\nmg Zm9v b v k\r\nms Zm9v 1 b k\r\nB\r\nmg foo v k\r\nget foo\r\nmd Zm9v b k\r\nmg foo v\r\nset foo 0 0 1\r\nC\r\nmg Zm9v b k v\r\n")
table("b64-bad-", [b"a", b"ab", b"abc", b"====", b"a===", b"ab=c", b"Zm9", b"Zm9v=", b"Zm9vYg", b"Zm9vYg=", b"Zm9v!g==", b"Zm-_", b"\xff\xff\xff\xff", b"Zm9vYg==x",
                   b"Zm9v====", b"=", b"AA==BB==", K250, b"A" * 248, b"A" * 252],
      [b"mg %s b v k\r\nmn\r\n", b"md %s b k\r\nmn\r\n", b"ma %s b k\r\nmn\r\n", b"me %s b\r\nmn\r\n", b"ms %s 1 b k\r\nA\r\nmn\r\n", b"mg %s b q\r\nmn\r\n"])
case("b64-flag-last", b"ms Zm9v 1 T0 F3 b\r\nA\r\nmg Zm9v v f k b\r\nmd Zm9v q b\r\nmn\r\n")
case("b64-flag-long", b"ms Zm9v 1 b64\r\nA\r\nmg Zm9v b64 v k\r\n")

# ---- ms

MS = [b"", b"c", b"k", b"s", b"O9", b"q", b"b", b"c k s O9", b"O9 s k c", b"F0", b"F5", b"F4294967295", b"F4294967296", b"F-1", b"F", b"Fx", b"F1x", b"T0", b"T100", b"T-1",
      b"T2592001", b"T", b"Tx", b"MS", b"ME", b"MA", b"MP", b"MR", b"Ms", b"Me", b"Ma", b"Mp", b"Mr", b"Mx", b"M", b"MSS", b"MA N100", b"MP N100", b"MA N100 T50", b"ME N30",
      b"MA N-1", b"MA Nx", b"E" + E1 + b" c", b"E0 c", b"Ex", b"E", b"C1", b"C0", b"Cx", b"C", b"C1 MA", b"C1 MP", b"C1 ME", b"C1 MR", b"C1 I", b"I", b"I MR", b"ME c", b"MA c s",
      b"MP c s k", b"MR c q", b"ME q", b"q k c", b"v", b"f", b"t", b"h", b"l", b"u", b"x", b"D1", b"J1", b"R30", b"N30", b"L1", b"P1", b"z", b"c c", b"q q", b"O" + b"x" * 31,
      b"O" + b"x" * 32, b"q O" + b"x" * 32, b"S1", b"W", b"noreply", b"0", b"\x80", b"T100 F9 c k s O1 ME", b"Mx T1", b"C18446744073709551615", b"C18446744073709551616"]
table("ms-miss-", MS, b"ms a 1 %s\r\nB\r\nmn\r\n" + SEE)
table("ms-hit-", MS, A + b"ms a 1 %s\r\nB\r\nmn\r\n" + SEE)
table("ms-length-", [b"0", b"-1", b"+1", b"01", b"1x", b"x", b"", b"1.5", b"S1", b"2147483646", b"2147483647", b"2147483648", b"4294967297", b"-2147483648", b"\t1", b"1\t", b"v", b"k"],
      [A, b"ms a %s\r\nB\r\n", SEE])
table("ms-length-flags-", [b"-1", b"x", b"1x", b"2147483648"], [A, b"ms a %s q z\r\nB\r\n", SEE])
for line in (b"ms", b"ms a", b"ms a q", b"ms " + K251 + b" 1", b"ms " + K250 + b" 1 k c", b"ms  a  1  c ", b"ms a 1\0 q", b"ms a\0 1 k", b"ms a 1 c\r"):
    case("ms-line-" + slug(line), [A, line + b"\r\nB\r\n", SEE])
for flags in (b"", b" q", b" k O1", b" ME", b" MA", b" z", b" Mx", b" T100 I"):
    case("ms-bad-chunk-long" + slug(flags), [A, b"ms a 1" + flags + b"\r\nBBBBB\r\n", SEE])
    case("ms-bad-chunk-short" + slug(flags), [A, b"ms a 9" + flags + b"\r\nB\r\nmg a v\r\nmn\r\n", SEE])
    case("ms-too-large" + slug(flags), [A, b"ms a 1048577" + flags + b"\r\n" + b"x" * 1048577 + b"\r\n", SEE])
case("ms-error-swallows", A + b"ms a 5 z\r\nmg a \r\nms a 7 v v\r\nmg a v\r\r\nmg a v\r\n", "what follows an error is swallowed by its length")
case("ms-too-large-2G", [A, b"ms a 2147483645\r\n", b"mg a v\r\n"], "swallows on and on")
case("ms-half", [b"ms a 10 c\r\n", b"abc"])
case("ms-slow", [b"ms a 1", b"0 c\r", b"\n01234", b"56789", b"\r", b"\nmg a v\r\n"])
case("ms-modes", b"ms a 1 MA\r\nA\r\nms a 1 ME\r\nA\r\nms a 1 ME\r\nB\r\nms a 1 MA s\r\nC\r\nms a 1 MP s\r\nD\r\nms a 1 MR F3\r\nE\r\nms x 1 MR\r\nE\r\nms a 2 MA T0 F9\r\nGG\r\n" + SEE)
case("ms-vivify", b"ms a 1 MA N100\r\nA\r\n" + SEE + b"ms a 1 MA N200\r\nB\r\n" + SEE + b"ms b 1 MP N100 F5 k c s\r\nA\r\nmg b v f t\r\n")
case("ms-append-keeps", b"ms a 1 F5 T100\r\nA\r\nms a 1 MA F9 T900\r\nB\r\n" + SEE)
case("ms-4095-4096-4097", b"".join(b"ms v%d %d F9 s\r\n%s\r\nmg v%d v f\r\n" % (n, n, b"x" * n, n) for n in (4095, 4096, 4097)))
case("ms-quiet-modes", A + b"ms a 1 q ME\r\nB\r\nms x 1 q MR\r\nB\r\nms x 1 q MA\r\nB\r\nms a 1 q C1\r\nB\r\nms x 1 q C1\r\nB\r\nms a 1 q MR\r\nC\r\nmn\r\n" + SEE)

# ---- CAS

for name, flags in (("ok", b""), ("append", b" MA"), ("prepend", b" MP"), ("replace", b" MR"), ("add", b" ME"), ("stale", b" I"), ("own", b" E" + E1), ("quiet", b" q"), ("all", b" k O1 s T50 F3")):
    case("cas-ms-" + name, [A + b"mg a c\r\n", b"ms a 1 c C" + CAS + flags + b"\r\nB\r\nmn\r\n" + SEE])
    case("cas-ms-twice-" + name, [A + b"mg a c\r\n", b"ms a 1 C" + CAS + flags + b"\r\nB\r\nms a 1 c C" + CAS + flags + b"\r\nC\r\nmn\r\n" + SEE])
for name, flags in (("ok", b""), ("stale", b" I"), ("stale-ttl", b" I T30"), ("tombstone", b" I x T30"), ("empty", b" x"), ("own", b" I E" + E2), ("quiet", b" q k O1")):
    case("cas-md-" + name, [A + b"mg a c\r\n", b"md a C" + CAS + flags + b"\r\nmn\r\n" + SEE + b"mg a c t v\r\n"])
    case("cas-md-wrong-" + name, [A + b"mg a c\r\n" + A, b"md a C" + CAS + flags + b"\r\nmn\r\n" + SEE])
for name, flags in (("ok", b""), ("decr", b" MD v"), ("own", b" E" + E2 + b" v t"), ("quiet", b" q"), ("vivify", b" N30 J5"), ("ttl", b" T30 t v k O2")):
    case("cas-ma-" + name, [N + b"mg n c\r\n", b"ma n c C" + CAS + flags + b"\r\nmn\r\nmg n v c t\r\n", b"ma n C" + CAS + b"\r\nmg n v c\r\n"])
    case("cas-ma-wrong-" + name, [N + b"mg n c\r\n" + N, b"ma n C" + CAS + flags + b"\r\nmn\r\nmg n v c t\r\n"])
case("cas-classic", [b"set a 1 0 1\r\nA\r\ngets a\r\n", b"ms a 1 c C" + CAS + b"\r\nB\r\n", b"cas a 2 0 1 " + CAS + b"\r\nC\r\ngets a\r\n", b"cas a 2 0 1 " + CAS + b"\r\nD\r\nmg a c v f\r\n"])
case("cas-missing", b"ms x 1 C5\r\nA\r\nmd x C5\r\nma x C5\r\nma x C5 N0 J7 v\r\nmg x v\r\n")
case("cas-of-a-reply", [b"ms a 1 c\r\nA\r\n", b"ms a 1 c C" + CAS + b"\r\nB\r\n", b"ma a c C" + CAS + b"\r\n", b"md a C" + CAS + b"\r\n" + SEE])
case("cas-own", b"ms a 1 c E" + E1 + b"\r\nA\r\nmg a c\r\nms a 1 c C" + E1 + b" E" + E3 + b"\r\nB\r\nms a 1 C" + E1 + b"\r\nC\r\nms a 1 C" + E2 + b" I c\r\nD\r\nmg a c v\r\n")
case("cas-own-stale", b"ms a 1 E" + E3 + b"\r\nA\r\nms a 1 I C" + E1 + b" E" + E2 + b" c\r\nB\r\nmg a v c\r\nmg a v c\r\nms a 1 C" + E2 + b" c\r\nC\r\nmg a v\r\n")
case("cas-me", [A + b"me a\r\n", b"ms a 1 c C" + CAS + b"\r\nB\r\nme a\r\n"])

# ---- stale and win

case("win", b"mg a v N30 t\r\nmg a v N30 t\r\nmg a v\r\nms a 1\r\nA\r\nmg a v N30\r\nmg a v\r\n")
case("win-lease", [b"mg a v c N30\r\nmg a v c N30\r\n", b"ms a 1 C" + CAS + b"\r\nA\r\nmg a v c N30\r\n"])
case("win-lease-lost", [b"mg a v c N30\r\n", b"md a\r\nms a 1 C" + CAS + b"\r\nA\r\nmg a v\r\n"])
case("win-lease-set", [b"mg a v c N30\r\n", A + b"ms a 1 C" + CAS + b"\r\nB\r\nmg a v\r\n"])
case("win-own", b"mg a v c N30 E" + E1 + b"\r\nmg a v c N30 E" + E2 + b"\r\nms a 1 C" + E1 + b" E" + E3 + b" c\r\nA\r\nmg a v c\r\n")
case("stale", AT + b"md a I T30\r\nmg a v t\r\nmg a v t\r\nmg a v t N30\r\nms a 1\r\nB\r\nmg a v t\r\n")
case("stale-again", AT + b"md a I\r\nmg a v\r\nmd a I\r\nmg a v\r\nmg a v\r\n")
case("stale-tombstone", A + b"md a I x T30\r\nmg a v f s t\r\nmg a v f s t\r\nms a 1 F3\r\nB\r\nmg a v f\r\n")
case("stale-missing", b"md a I\r\nmd a I x T30\r\nmd a x\r\nmg a v\r\n")
case("stale-classic", A + b"md a I T30\r\nget a\r\nmg a v\r\nget a\r\nappend a 0 0 1\r\nB\r\nmg a v\r\n")
case("stale-arithmetic", N + b"md n I T30\r\nma n v\r\nmg n v\r\nmg n v\r\nmd n I x\r\nma n v\r\nincr n 1\r\n")
case("stale-refresh", AT + b"mg a R30 v\r\nmg a R200 v\r\nmg a R200 v\r\nmg a v\r\nms a 1 T100\r\nB\r\nmg a R200\r\nms a 1 T300\r\nC\r\nmg a R200\r\n")
case("stale-refresh-forever", A + b"mg a R200 v\r\nmg a R200 v\r\n")
case("stale-with-modes", A + b"md a I\r\nms a 1 MA\r\nB\r\nmg a v\r\nmd a I\r\nms a 1 ME\r\nC\r\nms a 1 MR\r\nD\r\nmg a v\r\n")
case("stale-with-touch", AT + b"md a I\r\nmg a T50 t v\r\nmg a T70 t v\r\ntouch a 0\r\nmg a t v\r\n")
case("stale-invalid-cas", [AT + b"mg a c\r\n", b"md a I T30\r\nms a 1 C" + CAS + b" I c\r\nB\r\nmg a v t\r\nmg a v\r\n"])
case("stub-and-classic", b"mg a N30\r\nget a\r\nadd a 0 0 1\r\nA\r\nreplace a 0 0 1\r\nB\r\nmg a v\r\nmg b N30\r\nincr b 1\r\nappend b 0 0 1\r\nX\r\nmg b v\r\nma b\r\ndelete b\r\nmg b v\r\n")

# ---- md

MD = [b"", b"k", b"O1", b"q", b"b", b"k O1 q", b"I", b"I T30", b"I T0", b"I T-1", b"T30", b"x", b"x T30", b"I x", b"I x T30", b"I x T30 E" + E1, b"E" + E1, b"I E" + E1, b"x F5", b"C0", b"C1", b"Cx",
      b"C1 q", b"v", b"c", b"s", b"t", b"f", b"h", b"u", b"l", b"N30", b"R30", b"MS", b"M", b"D1", b"J1", b"z", b"k k", b"Ex", b"Tx", b"O" + b"x" * 31, b"O" + b"x" * 32, b"q O" + b"x" * 32,
      b"q z", b"I q k", b"x q", b"noreply", b"0", b"S"]
table("md-miss-", MD, b"md a %s\r\nmn\r\n" + SEE)
table("md-hit-", MD, A + b"md a %s\r\nmn\r\n" + SEE + b"mg a v t\r\n")
for line in (b"md", b"md ", b"md  a  k ", b"md " + K250 + b" k", b"md " + K251, b"md " + K251 + b" q", b"md a\0 k", b"md a b c"):
    case("md-line-" + slug(line), A + line + b"\r\nmn\r\n" + SEE)

# ---- ma

MA = [b"", b"v", b"c", b"t", b"k", b"O1", b"q", b"b", b"v c t k O1", b"v q", b"MI v", b"MD v", b"M+ v", b"M- v", b"Mi v", b"Md v", b"MINCR", b"Mx", b"M", b"MS", b"D5 v", b"D0 v", b"MD D5 v", b"MD D90 v",
      b"D18446744073709551615 v", b"D18446744073709551616", b"D-1", b"Dx", b"D", b"J7 v", b"N30 v", b"N30 J7 v", b"N30 J7 D5 v t", b"N0 J7 v t", b"N-1 J7 v", b"N30 J18446744073709551615 v", b"N30 Jx",
      b"N30 J", b"Nx", b"T30 t", b"T30 v t", b"t T30", b"T0 t", b"T-1 t", b"Tx", b"N30 T60 t v", b"E" + E1 + b" c v", b"N30 E" + E1 + b" c", b"Ex", b"C1", b"C0 c", b"Cx", b"s", b"f", b"h", b"l", b"u", b"x",
      b"I", b"F1", b"R30", b"z", b"v v", b"O" + b"x" * 31, b"O" + b"x" * 32, b"q O" + b"x" * 32, b"N30 O" + b"x" * 32, b"q z", b"q k", b"N30 q", b"noreply", b"S1"]
table("ma-miss-", MA, b"ma n %s\r\nmn\r\nmg n v t\r\nma n v\r\n")
table("ma-hit-", MA, N + b"ma n %s\r\nmn\r\nmg n v t\r\nma n v\r\n")
table("ma-word-", [b"", b"v", b"q", b"N30", b"O1 k"], A + b"ma a %s\r\nmn\r\n" + SEE)
for line in (b"ma", b"ma ", b"ma  n  v ", b"ma " + K250 + b" k N0 v", b"ma " + K251, b"ma n\0 v", b"ma n v c D1 x"):
    case("ma-line-" + slug(line), N + line + b"\r\nmn\r\n")
case("ma-wraps", b"ms n 20 T100\r\n18446744073709551615\r\nma n v\r\nma n v D2\r\nma n MD D5 v\r\nma n MD v\r\nmg n v t\r\n")
case("ma-shorter", b"ms n 3\r\n100\r\nma n MD v\r\nmg n v s\r\nma n v D1\r\nmg n v\r\n")
case("ma-longer", b"ms n 1\r\n9\r\nma n v c\r\nmg n v s c\r\n")
for value in (b"", b" 7  ", b"7 ", b"x7", b"7x", b"-1", b"18446744073709551616", b"0" * 19 + b"7", b"0" * 30, b"\t7"):
    case("ma-value-" + slug(value), b"ms n %d\r\n%s\r\nma n v\r\nma n MD D2 v\r\n" % (len(value), value))

# ---- me

table("me-", [b"a", b"x", b"n", b"a b", b"Zm9v b", b"a v", b"a k O1 q", b"a v b", K250, K251, b"", b" a ", b"b b", b"a\0", b"a bb"], A + N + b"ms Zm9v 3 b\r\nfoo\r\nme %s\r\nmn\r\n")
case("me-fetched", A + b"me a\r\nmg a\r\nme a\r\nget a\r\nme a\r\n")
case("me-ttl", AT + b"me a\r\nms a 100 F9 T500\r\n" + b"x" * 100 + b"\r\nme a\r\nmg a T0\r\nme a\r\n")
case("me-stub", b"mg a N30\r\nme a\r\nmd a I x T60\r\nme a\r\n")
case("me-large", b"ms a 9000\r\n" + b"x" * 9000 + b"\r\nme a\r\n")
case("me-binary", b"ms AP8K 1 b\r\nA\r\nme AP8K b\r\nme AP8K\r\n")

# ---- with classic commands

case("mixed", A + b"get a\r\ngets a\r\nset a 5 0 2\r\nBB\r\nmg a v f s\r\nincr a 1\r\nma a\r\ndelete a noreply\r\nmg a\r\nadd a 0 0 1 noreply\r\n1\r\nma a v\r\ntouch a 100\r\nmg a t\r\ngat 0 a\r\nmg a t\r\nmn\r\n")
case("mixed-flush", A + b"flush_all\r\nmg a v\r\nmn\r\n")
case("mixed-quit", A + b"mg a v q k\r\nquit\r\nmn\r\n")
case("mixed-noreply", b"set a 0 0 1 noreply\r\nA\r\nmg a v\r\nset a x 0 1 noreply\r\nmg a v\r\nmn\r\n")
case("mixed-bad-get", [A + b"mg a v\r\n", b"get " + K251 + b"\r\n", b"mg a v\r\n"])
case("half-a-line", [A, b"mg a v"])
