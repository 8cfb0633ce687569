"""Streams of classic text commands on the edges of the protocol, to be sent to a real memcached and to Outrigger: both must answer alike.

`notes` says what the case is about. If it begins with "own:", memcached's answer is its own (version, statistics, what it has been started
with) and only the first word of the first line can be compared; with "differs:", Outrigger answers differently on purpose.

Requests behind one that memcached refuses or hangs up on are pieces of their own: it forgets the answers that it has not sent yet then.
"""

from streams import Cases

CASES = case = Cases()


LATE = "memcached swallows the value first and then says that it is too large"
K250 = b"k" * 250
K251 = b"k" * 251
A = b"set a 1 0 1\r\nA\r\n"
N = b"set n 0 0 2\r\n10\r\n"

# Plain use.
case("set-get", A + b"get a\r\n")
case("get-miss", b"get a\r\n")
case("gets", A + b"gets a\r\n")
case("gets-twice", A + b"gets a\r\ngets a\r\n" + A + b"gets a\r\n")
case("get-many", A + N + b"get a n\r\nget n a\r\nget x a y n z\r\nget x y\r\n")
case("gets-many", A + N + b"gets a n a\r\n")
case("get-duplicates", A + b"get a a a x a\r\n")
case("empty-value", b"set e 0 0 0\r\n\r\nget e\r\n")
case("value-with-newlines", b"set v 7 0 10\r\n\r\nEND\r\nget\r\nget v\r\n")
case("value-binary", b"set v 7 0 4\r\n\0\xff\n\x80\r\nget v\r\n")
case("value-8k", b"set v 0 0 8192\r\n" + b"v" * 8192 + b"\r\nget v\r\nget v a v\r\n")
case("value-4095-4096-4097", b"".join(b"set v%d 9 0 %d\r\n%s\r\n" % (n, n, b"x" * n) for n in (4095, 4096, 4097)) + b"get v4095 v4096 v4097\r\n")
case("flags-max", b"set f 4294967295 0 1\r\nx\r\nget f\r\n")
case("pipeline", (A + b"get a\r\n") * 20)
case("key-250", b"set " + K250 + b" 0 0 1\r\nx\r\nget " + K250 + b"\r\ndelete " + K250 + b"\r\n")
case("key-utf8", "set schlüssel→ 0 0 1\r\nx\r\nget schlüssel→\r\n".encode())
case("key-control", b"set a\tb\x01\x7f 0 0 1\r\nx\r\nget a\tb\x01\x7f\r\ndelete a\tb\x01\x7f\r\n")
case("key-control-200", b"set %s 0 0 1\r\nx\r\nget %s\r\n" % (b"\t" * 200, b"\t" * 200), "too long for base64")
case("key-cr", b"set a\rb 0 0 1\r\nx\r\nget a\rb\r\nget a\r\r\n")
case("key-noreply", b"set noreply 0 0 1\r\nx\r\nget noreply\r\ndelete noreply\r\nget noreply\r\n")
case("key-zero", b"set 0 0 0 1\r\nx\r\nget 0\r\ndelete 0\r\n")
case("key-is-a-command", b"set get 0 0 1\r\nx\r\nget get\r\nget set\r\n")

# Ends of lines.
case("bare-newlines", b"set a 0 0 1\nA\r\nget a\nget x\ndelete a\n")
case("value-bare-newline", b"set a 0 0 1\nA\nget a\r\n", "the two bytes behind the value are wrong")
case("empty-line", b"\r\n")
case("empty-line-bare", b"\n")
case("empty-lines", b"\r\n\n\r\nget a\r\n")
case("spaces-only", b"   \r\n \n")
case("cr-in-front", b"\rget a\r\n")
case("two-crs", A + b"get a\r\r\n")
case("two-crs-number", b"set a 0 0 1\r\r\nA\r\nget a\r\n")
case("two-crs-noreply", b"set a 0 0 1 noreply\r\r\nA\r\nget a\r\n")
case("nul-in-key", A + b"get a\0b\r\nget a\0\r\n")
case("nul-first", b"\0get a\r\nget a\r\n")
case("nul-in-command", b"ge\0t a\r\n")
case("nul-after-command", b"get\0 a\r\n")
case("nul-in-many", A + b"get a x\0 a\r\nget a \0a\r\nget a\0a a\r\n")
case("nul-in-set", b"set a 0 0 1\0 noreply\r\nA\r\nget a\r\n")
case("nul-before-crlf", A + b"get a\0\r\nget a\n")
case("tab-for-space", b"get\ta\r\nset\ta 0 0 1\r\nget a\r\n")

# Spaces.
case("leading-spaces", A + b"   get a\r\n  set b 0 0 1\r\nB\r\n get b\r\n")
case("trailing-spaces", A + b"get a   \r\nset b 0 0 1  \r\nB\r\nget b\r\ndelete a \r\n")
case("runs-of-spaces", A + b"get   a    x  a \r\nset   b  0  0   1\r\nB\r\nget b\r\n")
case("spaces-then-get-100", A + b" " * 100 + b"get a\r\n")
case("spaces-then-get-200", A + b" " * 200 + b"get a\r\n")

# Commands that are none.
for word in (b"x", b"xy", b"GET a", b"Set a 0 0 1", b"gett a", b"ge a", b"g", b"get", b"gets", b"gat", b"gats", b"get ", b"getx", b"gst a", b"gut a",
             b"gits a", b"sit a 0 0 1", b"set", b"sets a 0 0 1", b"aad a 0 0 1", b"cad a 0 0 1 1", b"incx a 1", b"quiz", b"quits", b"touche a 1",
             b"stat", b"appenf a 0 0 1", b"delet a", b"deletes a", b"replacf a 0 0 1", b"prepenf a 0 0 1", b"versiom", b"flush_al", b"flush_alk",
             b"verbositz 1", b"flush", b"bget a", b"bget", b"bgat a", b"noreply", b"\x80", b"\x81\x00\x00\x00", b"m", b"mx", b"mx a v", b"mmm"):
    case("word-" + word.decode("latin-1").encode("unicode_escape").decode(), A + word + b"\r\nget a\r\n")
case("twenty-words", b"a b c d e f g h i j k l m n o p q r s t u v w x y z\r\nfoo " * 2 + b"\r\n")
case("shutdown", b"shutdown\r\nshutdown graceful\r\nshutdown now\r\n")
case("http-get", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "hung up on")
case("http-post", b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n")
case("http-lower", b"get / HTTP/1.1\r\nHost: x\r\n\r\n", "two keys, then an unknown word")
case("http-put", b"put / HTTP/1.0\r\n")
case("http-delete", [b"delete / HTTP/1.0\r\n", b"DELETE / HTTP/1.0\r\n"])
case("http-trace", [b"trace / HTTP/1.0\r\n", b"mkcol / HTTP/1.0\r\n"])
case("http-word", b"xx HTTP/\r\n")
case("http-not-last", b"xx HTTP/1.1 y\r\nversions\r\n")
case("http-24th", b"xx" + b" w" * 21 + b" HTTP/ z\r\n")
case("http-25th", b"xx" + b" w" * 22 + b" HTTP/\r\nxx\r\n", "beyond what memcached looks at")
case("http-short", b"x HTTP/1.1\r\nmx HTTP/1.1\r\n")
for word in (b"mg a v", b"ms a 1\r\nx", b"md a", b"mn", b"ma a", b"me a"):
    case("meta-" + word[:2].decode(), A + word + b"\r\nget a\r\n", "among classic ones; test_meta.py has more")
for word in (b"slabs automove 0", b"lru_crawler enable", b"cache_memlimit 64", b"lru mode flat", b"watch", b"refresh_certs"):
    case("admin-" + word.split(b" ")[0].decode(), word + b"\r\n", "differs: a node's own affairs")
case("extstore", b"extstore x 1\r\n", "memcached has it only where it is used")

# Keys that are too long.
for line in (b"get %s", b"get a %s", b"get %s a", b"gets a %s a", b"gat 0 %s", b"gats 0 a %s", b"set %s 0 0 1", b"set %s 0 0 1 noreply", b"add %s 0 0 1",
             b"cas %s 0 0 1 1", b"append %s 0 0 1", b"delete %s", b"delete %s 0", b"delete %s noreply", b"delete %s 5", b"incr %s 1", b"incr %s x",
             b"decr %s 1 noreply", b"touch %s 0", b"touch %s x", b"touch %s 0 noreply", b"stats %s", b"set %s x y z", b"gat x %s", b"get %s noreply"):
    case("long-key-" + (line % b"K").decode().replace(" ", "_"), [A, line % K251 + b"\r\n", b"get a\r\n"])
case("long-key-late", [A, b"get " + b"a " * 60 + K251 + b" a\r\n", b"get a\r\n"], "memcached unwinds the answers that it has")
case("long-key-1000", [b"set " + b"k" * 1000 + b" 0 0 1\r\nx\r\nget a\r\n"])

# set and its kin.
for verb in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
    u = b" 1" if verb == b"cas" else b""
    name = verb.decode() + "-"
    for args in (b"", b"a", b"a 0", b"a 0 0", b"a 0 noreply", b"a 0 0 noreply"):
        case(name + "few-" + args.decode().replace(" ", "_"), verb + b" " + args + b"\r\nget a\r\n")
    case(name + "hit", A + verb + b" a 2 0 1" + (b" 999999999999" if u else b"") + b"\r\nB\r\nget a\r\n")
    case(name + "miss", verb + b" a 2 0 1" + u + b"\r\nB\r\nget a\r\n")
    case(name + "noreply", A + verb + b" a 2 0 1" + u + b" noreply\r\nB\r\nget a\r\n")
    case(name + "word-behind", A + verb + b" a 2 0 1" + u + b" foo\r\nB\r\nget a\r\n")
    case(name + "NOREPLY", A + verb + b" a 2 0 1" + u + b" NOREPLY\r\nB\r\nget a\r\n")
    case(name + "noreply-x", A + verb + b" a 2 0 1" + u + b" noreplyx\r\nB\r\nget a\r\n")
    case(name + "too-many", verb + b" a 2 0 1" + u + b" noreply 1\r\nBB\r\nget a\r\n")
    case(name + "bad-chunk-long", A + verb + b" a 2 0 1" + u + b"\r\nBBBBB\r\nget a\r\n")
    case(name + "bad-chunk-short", A + verb + b" a 2 0 9" + u + b"\r\nB\r\nget a\r\nget a\r\n")
    case(name + "bad-chunk-noreply", A + verb + b" a 2 0 1" + u + b" noreply\r\nBBBBB\r\nget a\r\n")
    case(name + "bad-flags-noreply", verb + b" a x 0 1" + u + b" noreply\r\nBB\r\nget a\r\n", "not even errors are answered")
    case(name + "bad-length-noreply", verb + b" a 0 0 x" + u + b" noreply\r\nBB\r\nget a\r\n")
    case(name + "too-large", A + verb + b" a 0 0 1048577" + u + b"\r\n" + b"x" * 1048577 + b"\r\nget a\r\n")
    case(name + "too-large-noreply", A + verb + b" a 0 0 1048577" + u + b" noreply\r\n" + b"x" * 1048577 + b"\r\nget a\r\n")
case("too-large-2M", A + b"set a 0 0 2097152\r\n" + b"x" * 2097154 + b"get a\r\n", "what is swallowed is not looked at")
case("too-large-2G", [b"set a 0 0 2147483645\r\n", b"get a\r\n"], "differs: " + LATE)
case("too-large-2G-noreply", [b"set a 0 0 2147483645 noreply\r\n", b"get a\r\n"], "swallows on and on")
NUMBERS = (b"-1", b"+1", b"-0", b"01", b"1x", b"x1", b"x", b"0x10", b"1.5", b"1e3", b"-", b"+", b"--1", b"\t1", b"1\t", b"1\tx", b"\x0b1\x0bx", b"1\x01",
           b"-5", b"2147483644", b"2147483645", b"2147483646", b"2147483647", b"2147483648", b"4294967295", b"4294967296", b"4294967297", b"-4294967295",
           b"9223372036854775807", b"9223372036854775808", b"-9223372036854775807", b"-9223372036854775808", b"-9223372036854775809",
           b"18446744073709551615", b"18446744073709551616", b"-18446744073709551615", b"-18446744073709551616", b"99999999999999999999999",
           b"000000000000000000000000001", b"noreply")
for number in NUMBERS:
    name = number.decode().encode("unicode_escape").decode()
    seconds = number.replace(b"1", b"99") if len(number) < 6 else number  # a second could pass while the case runs
    case("flags-" + name, b"set a %s 0 1\r\nAB\r\nget a\r\n" % number)
    case("flags-good-" + name, b"set a %s 0 1\r\nA\r\nget a\r\n" % number)
    case("exptime-" + name, b"set a 0 %s 1\r\nA\r\nget a\r\n" % seconds)
    note = "differs: " + LATE if name in ("2147483644", "2147483645") else ""
    case("length-" + name, [b"set a 0 0 %s\r\nA\r\nget a\r\n" % number, b"get a\r\n"], note)
    case("unique-" + name, A + b"cas a 0 0 1 %s\r\nB\r\nget a\r\n" % number)
    case("incr-by-" + name, N + b"incr n %s\r\nget n\r\n" % number)
    case("decr-by-" + name, N + b"decr n %s\r\nget n\r\n" % number)
    case("touch-" + name, A + b"touch a %s\r\nget a\r\n" % seconds)
    case("touch-noreply-" + name, A + b"touch a %s noreply\r\nget a\r\n" % seconds)
    case("gat-" + name, A + b"gat %s a\r\nget a\r\n" % seconds)
    case("flush_all-" + name, A + b"flush_all %s\r\n" % seconds, "what it flushes depends on the second it comes in")
    case("verbosity-" + name, b"verbosity %s\r\nverbosity 0 noreply\r\n" % number)

# delete, incr, decr, touch, gat.
for args in (b"", b" a", b" a 0", b" a 0 noreply", b" a noreply", b" a noreply 0", b" a 5", b" a 5 noreply", b" a 00", b" a -0", b" a 0 0", b" a 0 x",
             b" a x", b" a noreply noreply", b" a 0 noreply x", b" a 0 0 noreply", b" noreply", b" a NOREPLY", b" a  0"):
    case("delete" + args.decode().replace(" ", "_"), A + b"delete" + args + b"\r\nget a\r\ndelete a\r\n")
for verb in (b"incr", b"decr"):
    for args in (b"", b" n", b" n 5", b" n 5 noreply", b" n 5 x", b" n 5 noreply x", b" n noreply", b" n x noreply", b" x 5", b" x 5 noreply", b" a 5",
                 b" a 5 noreply", b" n 0", b" n 11", b" n 90"):
        case(verb.decode() + args.decode().replace(" ", "_"), A + N + verb + args + b"\r\nget n\r\n")
    case(verb.decode() + "-wraps", b"set n 0 0 20\r\n18446744073709551615\r\n" + verb + b" n 1\r\nget n\r\n")
    case(verb.decode() + "-empty", b"set n 0 0 0\r\n\r\n" + verb + b" n 1\r\nget n\r\n")
    case(verb.decode() + "-spaces", b"set n 0 0 4\r\n 7  \r\n" + verb + b" n 1\r\nget n\r\n")
for args in (b"", b" a", b" a 0", b" a 0 noreply", b" a 0 x", b" a 0 noreply x", b" a noreply", b" x 0", b" x 0 noreply", b" a x"):
    case("touch" + args.decode().replace(" ", "_"), A + b"touch" + args + b"\r\nget a\r\n")
for verb in (b"gat", b"gats"):
    for args in (b"", b" 0", b" 0 ", b" x", b" 0 a", b" 0 a x a", b" 0 x", b" x a", b" a", b" 0 a noreply", b" -1 a", b" noreply a", b" 100 a n"):
        case(verb.decode() + args.decode().replace(" ", "_"), A + N + verb + args + b"\r\nget a\r\n")

# The rest.
for args in (b"", b" ", b" 0", b" -1", b" noreply", b" 0 noreply", b" -1 noreply", b" x", b" x noreply", b" noreply noreply", b" noreply 0", b" 0 0",
             b" 0 x", b" 0 0 noreply", b" 1 2 3", b" NOREPLY"):
    case("flush" + args.decode().replace(" ", "_"), A + b"flush_all" + args + b"\r\nget x\r\n")
case("flush-then-get", [A, b"", b"", b"flush_all\r\nget a\r\n"])
for args in (b"", b" 1", b" 1 noreply", b" 1 x", b" 1 2 3", b" noreply", b" x", b" x noreply", b" noreply noreply", b" -1", b" 5000000000"):
    case("verbosity" + args.decode().replace(" ", "_"), b"verbosity" + args + b"\r\nverbosity 0 noreply\r\nget x\r\n")
case("version", b"version\r\n", "own: version")
case("version-args", b"version a b c noreply\r\n", "own: version")
case("version-noreply", b"version noreply\r\n", "own: version")
case("stats", b"stats\r\n", "own: statistics")
case("stats-unknown", b"stats foo\r\nstats foo bar\r\n")
case("stats-reset", b"stats reset\r\n")
case("quit", A + b"get a\r\nquit\r\nget a\r\n")
case("quit-args", A + b"quit now please noreply\r\nget a\r\n")

# Long lines.
MANY = b" ".join(b"key%05d" % i for i in range(3000))
case("many-keys", b"set key00042 0 0 1\r\nx\r\nset key02999 0 0 1\r\ny\r\nget " + MANY + b"\r\nget key00042\r\n")
case("many-keys-slow", [b"set key00042 0 0 1\r\nx\r\n", b"gets ", MANY[:3000], MANY[3000:9000], MANY[9000:], b"\r", b"\nget key00042\r\n"])
case("many-keys-too-long-one", [b"get " + MANY + b" " + K251 + b" a\r\n", b"get a\r\n"])
for count in (21, 22, 23, 24, 44, 45, 46, 47, 100):
    case("keys-%d" % count, A + b"get" + b" a" * count + b"\r\n" + b"get" + b" a" * count + b" \r\n", "memcached splits a line every 23 words")
case("gat-keys-100", A + b"gat 0" + b" a" * 100 + b"\r\n")
case("long-line-junk", [b"x" * 2048, b"\r\n", b"get a\r\n"])
case("long-line-junk-close", [b"x" * 2049, b"\r\n", b"get a\r\n"])
case("long-line-get-keyless", [b"get" + b"x" * 3000, b"\r\n"])
case("long-line-one-key", [b"get " + b"x" * 3000, b"\r\n", b"get a\r\n"])
case("long-line-set", [b"set " + b"x" * 3000, b" 0 0 1\r\nx\r\n"])
case("long-line-gat", [b"gat 0" + b" abcdefgh" * 300, b"\r\n", b"get a\r\n"], "only get and gets may be long")
case("long-line-gats", [b"gats 0" + b" abcdefgh" * 300, b"\r\n", b"get a\r\n"])
case("long-line-spaces", [b" " * 3000, b"get a\r\n"])
case("long-line-100-spaces", [A, b" " * 100 + b"get" + b" a" * 1100, b"\r\n"])
case("long-line-101-spaces", [A, b" " * 101 + b"get" + b" a" * 1100, b"\r\n"])
case("long-line-tab", [b"get\t" + b" a" * 1100, b"\r\n"])
case("junk-1M", [b"x" * (1 << 20), b"\r\n"])

# In pieces.
case("slow-get", [A, b"g", b"e", b"t", b" ", b"a", b"\r", b"\n"])
case("slow-set", [b"set a 0 0 1", b"0\r", b"\n01234", b"56789", b"\r", b"\nget a\r\n"])
case("slow-bad-chunk", [b"set a 0 0 2\r\n", b"ab", b"c", b"d\r\nget a\r\n"])
case("half-a-command", [b"get "])
case("half-a-value", [b"set a 0 0 10\r\n", b"abc"])
