"""The meta commands as clients speak them: in aside namespaces like memcached 1.6.38's, answer for answer; in read-through ones with the
guarantees of those."""

import base64
import json
import re

import pytest

from support import Growth, Wire, until
from through import through_region

K250 = b"k" * 250
LONG = b"O" + b"o" * 31  # the longest opaque, its letter included


def b64(key: bytes) -> bytes:
    return base64.b64encode(key)


def normalise(answer: bytes) -> bytes:
    """CAS uniques that nobody has chosen are the server's own business: each is replaced by its rank in the answer. So is where an item lies."""
    seen = {}

    def rank(match):
        return b" c<%d>" % seen.setdefault(match[1], len(seen) + 1) if len(match[1]) < 4 or len(match[1]) > 12 else match[0]
    answer = re.sub(rb" c(\d+)(?=[ \r])", rank, answer)
    return re.sub(rb" la=\d+ cas=\d+ fetch=(\w+) cls=\d+ size=\d+", rb" la=. cas=. fetch=\1 cls=. size=.", answer)


END, THE_END = b"mg no-such-key Othe-end\r\n", b"EN Othe-end\r\n"


def ask(address, stream: bytes, step: int = 1 << 30) -> bytes:
    """The answer to a stream that is sent in pieces, up to that to the request behind it."""
    with Wire(address) as wire:
        for at in range(0, len(stream), step):
            wire.send(stream[at:at + step])
        answer = wire.ask(END, THE_END)
        assert answer.endswith(THE_END), answer
        return normalise(answer[:-len(THE_END)])


# ---- aside

A = b"ms a 1 F5\r\nA\r\n"
N = b"ms n 2\r\n10\r\n"
#: Streams that a real memcached answers alike. Uniques of 4 to 12 digits are chosen by the client, and must come back as they are.
ALIKE = {
    "mg": A + b"mg a\r\nmg a v\r\nmg x v\r\nmg x\r\nmg a f v\r\nmg a s v k f\r\nmg a k\r\nmg a O1 k v\r\n",
    "mg-order": A + b"mg a s f t k O7 v c\r\nmg a O7 k t f s v\r\nmg a k v O7 f\r\n",
    "mg-miss": b"mg x v f t c s k Oabc\r\nmg x Oabc k\r\nmg x q v\r\nmg x q k\r\n",
    "mg-quiet": A + b"mg a q\r\nmg a q v k\r\nmg x q\r\nmg a v q Obc\r\nmg x q Obc k\r\n",
    "mg-hit-and-last": A + b"mg a h t l\r\nmg a h l\r\nmg a h u\r\nms b 1\r\nB\r\nmg b u v\r\nmg b h u\r\nmg b h\r\nmg b h\r\n",
    "mg-touch": A + b"mg a t\r\nmg a T100\r\nmg a t\r\nmg a T0 t\r\nmg a t T200\r\nmg a t T300\r\nmg x T10 v\r\nmg a T-1\r\nmg a v\r\n",
    "mg-ttl-order": A + b"mg a T100 t\r\nmg a t T200\r\nmg a T300 t v f\r\nmg y N30 t\r\nmg z t N30\r\nmg z t\r\nmg w T9 N30 t\r\nmg p N30 T9 t\r\n"
                    b"mg q1 N30 t T9\r\nmg q1 t\r\nmg a R500 T600 t\r\nmg a T600 R500\r\nmg a T100 R500 t k\r\n",
    "mg-vivify": b"mg v1 N60 v c t E4321\r\nmg v1 N60 v c\r\nmg v1 v f s\r\nms v1 2 C4321 E5432\r\nhi\r\nmg v1 v c N60\r\nmg v2 N0 t v\r\nmg v3 N-1 v\r\nmg v3 v\r\n",
    "mg-recache": b"ms r 1 T50\r\nR\r\nmg r v R30 t\r\nmg r v R60\r\nmg r v R60\r\nmg r v\r\nms r 1 T50\r\nR\r\nmg r R60 v\r\n",
    "mg-stale": A + b"md a I T50\r\nmg a v t\r\nmg a v\r\nmg a\r\nmg a k s\r\nms a 1\r\nB\r\nmg a v\r\nmd a I\r\nmd a I\r\nmg a\r\nmg a O1 c\r\n",
    "mg-ignored": A + b"mg a C1 E5 F7 I x M? D1 J1 P Lx v\r\nmg a P1 L2 v\r\nmg a vv\r\nmg a v1 kx\r\n",
    "mg-opaque": A + b"mg a O\r\nmg a O k\r\nmg a " + LONG + b"\r\nmg a " + LONG + b"o\r\nmg a v OO\r\nmg a Ob o\r\nmg a O\tx\r\n",
    "mg-base64": b"ms " + b64(b"a b") + b" 1 b F3\r\nx\r\nmg " + b64(b"a b") + b" b v k f\r\nmg " + b64(b"a b") + b" k b s\r\nmg "
                 + b64(b"none here") + b" b k O1\r\nmd " + b64(b"a b") + b" b k\r\nmg " + b64(b"a b") + b" b\r\n",
    "base64-odd": b"mg ! b\r\nmg Zg b\r\nmg Zg= b\r\nmg ==== b\r\nmg A=== b\r\nmg Z!g=!= b k\r\nmg =AAA b k\r\nmg Zg==Zg== b k\r\nmg AA== b k\r\nmg "
                  + b64(b"k" * 186) + b" b k\r\nmg " + b64(b"k" * 187) + b"\r\nmg " + b64(b"\xff\n\r\0") + b" b k\r\nmd Zg b\r\nms Zg 1 b\r\nx\r\n",
    "base64-control": b"ms " + b64(b"\n\r\0 ") + b" 1 b k\r\nx\r\nmg " + b64(b"\n\r\0 ") + b" b v k\r\nma " + b64(b"\n\r\0 ") + b" b N0 J7 v k\r\n",
    "mg-errors": b"mg\r\nmg \r\nmg " + K250 + b"\r\nmg " + K250 + b"k\r\nmg a v v\r\nmg a \x80\r\nmg a \x7f\r\nmg a z\r\nmg a v z v\r\nmg a T\r\nmg a Tx\r\nmg a N\r\n"
                 b"mg a Rx\r\nmg a Fx\r\nmg a Cx\r\nmg a Ex Fx\r\nmg a Fx Dx\r\nmg a D-1\r\nmg a Jx\r\nmg a M\r\nmg a Mxx\r\nmg a Tx Mxx q\r\nmg a q z\r\n"
                 b"mg a T9223372036854775808\r\nmg a v \tv\r\nmg a T1\tx v\r\n",
    "mg-many": b"mg a b c d e f g h i j k l m n o p q r s t u v w\r\nmg a v f c t h l s k q u I x P L C1 E1 F1\r\nmg a v f c t h l s k q u I x P L C1 E1 F1 T1\r\n"
               b"mg a v v v v v v v v v v v v v v v v v v v v v v v v v v v v\r\nmg a v v v v v v v v v v v v v v v v v\r\n",
    "spaces": A + b"  mg   a  v   k \r\nmg a v \r\n ms  b  1  k  \r\nB\r\nmd  b  q \r\n mn x \r\nmg a v\nmg a\tv\r\n",
    "ms": b"ms a 1\r\nA\r\nms a 1 k O1\r\nB\r\nms a 1 q\r\nC\r\nmg a v\r\nms a 0\r\n\r\nmg a v\r\nms a 2 F9 T100\r\nhi\r\nmg a v f t\r\nms a 1 S100 \r\nA\r\n",
    "ms-returns": b"ms a 1 O1 k s b0\r\nA\r\nms a 1 s k O1\r\nA\r\nms a 1 O1 s E4444 c k\r\nA\r\nms a 1 MA s\r\nB\r\nms a 1 MA E5555 c s k Oz\r\nC\r\nmg a v c\r\n"
                  b"ms x 1 MR s c k O1\r\nA\r\nms a 1 ME c s\r\nA\r\nms a 1 C1 c s Oz\r\nA\r\nms x 1 C1 c s\r\nA\r\n",
    "ms-modes": b"ms a 1 ME\r\nA\r\nms a 1 ME\r\nB\r\nms a 1 MA\r\nC\r\nms a 1 MP\r\nD\r\nmg a v\r\nms a 1 MR\r\nE\r\nms x 1 MR\r\nF\r\nms x 1 MA\r\nG\r\nms x 1 MP k\r\nH\r\n"
                b"ms x 1 MS\r\nI\r\nmg x v\r\nms a 1 Me\r\nJ\r\nms a 1 Mset\r\nK\r\nms a 1 M\r\nL\r\nmg a v\r\n",
    "ms-modes-quiet": b"ms a 1 ME q\r\nA\r\nms a 1 ME q\r\nB\r\nms x 1 MA q k\r\nG\r\nms a 1 C1 q O2\r\nG\r\nms x 1 C1 q\r\nG\r\nms a 1 Mx q\r\nA\r\n",
    "ms-append-vivify": b"ms a 1 MA N100 T5\r\nA\r\nmg a v t\r\nms b 1 MP N0\r\nB\r\nmg b v t\r\nms b 1 MP N100 F5\r\nC\r\nmg b v t f\r\nms c 1 N100\r\nC\r\nmg c t\r\n",
    "ms-cas": b"ms a 1 E1234\r\nA\r\nms a 1 C1234 E2345 c\r\nB\r\nms a 1 C1234\r\nC\r\nms a 1 C9999 q\r\nC\r\nmg a v c\r\nms x 1 C1\r\nD\r\nms a 1 MR C2345 E3456\r\nE\r\n"
              b"ms a 1 MA C1 \r\nF\r\nms a 1 MA C3456\r\nG\r\nmg a v\r\nms a 1 C0\r\nA\r\nms a 1 ME C5\r\nA\r\n",
    "ms-stale": b"ms a 1 E5000\r\nA\r\nms a 1 C4000 I E6000 c\r\nB\r\nmg a v c\r\nmg a v\r\nms a 1 C7000 I\r\nC\r\nms a 1 I\r\nC\r\nmg a v\r\n",
    "ms-exptime": b"ms a 1 T-1\r\nA\r\nmg a v\r\nms a 1 T4294967297\r\nA\r\nmg a v t\r\nms b 1 T0\r\nB\r\nmg b t\r\n",
    "ms-flags": b"ms a 1 F4294967295\r\nA\r\nmg a f\r\nms a 1 F4294967297\r\nA\r\nmg a f\r\nms a 1 F-1\r\nA\r\nms a 1 F\r\nA\r\nms a 1 F1 F2\r\nA\r\nmg a v f\r\n",
    "ms-errors": b"ms\r\nms a\r\nms a x\r\nms a -1\r\nms a 1x\r\nms a 2147483646\r\nms " + K250 + b"k 1\r\nms a v\r\nms a S1\r\nmg a v\r\n",
    "ms-swallows": b"ms a 12 z\r\nget a\r\nget b\r\nms a 2 v v\r\nhi\r\nms a 2 Tx\r\nhi\r\nms a 2 Mx\r\nhi\r\nms a 2 Mx " + LONG + b"o\r\nhi\r\nms a 2 " + LONG
                   + b"o\r\nhi\r\nms a 2 " + LONG + b"\r\nhi\r\nms a 2 q z\r\nhi\r\nms a 4294967298 z\r\nhi\r\nmg a v\r\n",
    "ms-many": b"ms a 2 v f c t h l s k q u I x P L C1 E1\r\nhi\r\nms a 2 v f c t h l s k q u I x P L C1 E1 F1\r\nms x v f c t h l s k q u I x P L C1 E1 F1 D1\r\n",
    "ms-bad-chunk": b"ms a 2\r\nhixx\r\nmg a\r\n" + b"ms a 2 q k\r\nh\r\n\r\nmn\r\nms a 2\r\nhello\r\nmg a v\r\n",
    "ms-too-large": A + b"ms a 2000000 MA q k O1\r\n" + b"x" * 2000000 + b"\r\nmg a v\r\n" + A + b"ms a 2000000 C1 x I\r\n" + b"x" * 2000000 + b"\r\nmg a v\r\n",
    "ms-ignored": b"ms a 1 v f t h l u x R5 D1 J1 P Lx\r\nA\r\nmg a v\r\n",
    "md": A + b"md a\r\nmd a\r\nmd a k O1\r\n" + A + b"md a q\r\nmd a q\r\n" + A + b"md a O1 k q\r\nmd a q O1 k\r\n" + A + b"md a k c s t f v O1\r\n",
    "md-cas": b"ms a 1 E1234\r\nA\r\nmd a C1\r\nmd a C1 q O1 k\r\nmd a C1234\r\nmd a C1234\r\n",
    "md-stale": b"ms a 1 F5 T100 E1111\r\nA\r\nmd a I E2222 T50\r\nmg a v c f t\r\nmg a v\r\nmd a I q\r\nmd x I q\r\nmd x x\r\n",
    "md-drop": b"ms a 1 F5 E1111\r\nA\r\nmd a x E2222\r\nmg a v c f t s\r\nmd a x F7 T60 E3333\r\nmg a v c f t\r\nmd a x I E4444\r\nmg a v c\r\nmg a v\r\n",
    "md-errors": b"md\r\nmd " + K250 + b"k\r\nmd a z\r\nmd a k k\r\nmd a Tx\r\nmd a Mxx q\r\nmd a " + LONG + b"o\r\nmd a b\r\nmd a v f c t h l s k q u I x P L C1 E1 F1 T1\r\n",
    "ma": N + b"ma n\r\nma n v\r\nma n D5 v\r\nma n MD v\r\nma n M- D100 v\r\nma n MI v\r\nma n M+ D2 v k O1\r\nma n O1 k\r\nma x\r\nma x v k O1\r\nma n q\r\nma n q v\r\nma x q k\r\nmg n v\r\n",
    "ma-returns": N + b"ma n v t c k O7 E5555\r\nma n O7 k c t E6666\r\nma n T100 t v\r\nma n t T200\r\nma n t\r\nma n s f h l\r\n",
    "ma-vivify": b"ma c1 N100 J13 v t\r\nma c1 N100 J13 v\r\nma c2 N0 v t k\r\nma c2 v\r\nma c3 t N50\r\nma c3 t\r\nma c4 N100 T50 t\r\nma c5 T50 N100 t\r\nma c6 J5\r\n"
                 b"ma c7 N-1 J5 v\r\nma c7 v\r\nma c8 N0 J18446744073709551615 v\r\nma c8 v\r\nma c9 N0 E7777 c\r\n",
    "ma-cas": b"ms n 1 E1234\r\n5\r\nma n C1 v\r\nma n C1 q k O1\r\nma n C1234 E2345 c v\r\nma n C2345 MD v\r\n",
    "ma-wraps": b"ms n 20\r\n18446744073709551615\r\nma n v\r\nma n D18446744073709551615 v\r\nma n MD D18446744073709551615 v\r\nms m 3\r\n100\r\nma m MD D99 v\r\nmg m v\r\n",
    "ma-errors": A + b"ma\r\nma a\r\nma a q\r\nma " + K250 + b"k\r\nma n z\r\nma n v v\r\nma n Dx\r\nma n D-1\r\nma n Jx\r\nma n Mx\r\nma n Md\r\nma n Mi\r\nma n M\r\nma n Mx "
                 + LONG + b"o\r\nma n v f c t h l s k q u I x P L C1 E1 F1 T1\r\nma n MS\r\n",
    "mn": b"mn\r\nmn a b c\r\n mn\r\n",
    "me": A + b"me a\r\nmg a\r\nme a\r\nme a T1 x z\r\nme x\r\nme\r\nme " + K250 + b"k\r\nme " + K250 + b"\r\nme a q\r\nms t 1 T100\r\nA\r\nme t\r\n",
    "me-base64": b"ms " + b64(b"a b") + b" 1 b\r\nx\r\nme " + b64(b"a b") + b" b\r\nme " + b64(b"x y") + b" b\r\nme Zg b\r\nme Zg x b\r\nme Zg bb\r\n",
    "none": b"mx\r\nm\r\nmm a\r\nMG a\r\nmgg a\r\nmset a\r\n m a\r\n",
    "mixed": A + b"get a\r\ngets x\r\nset b 0 0 1\r\nB\r\nmg b v\r\ndelete b\r\nmg b\r\nmg a v q\r\nget a\r\n",
    "nul": A + b"mg a v\0 k\r\nmg a\0 v\r\nmg\0 a\r\nmg a O\0x k\r\nms a 1\0 q\r\nB\r\nmg a v\r\n",
}


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("step", [1 << 30, 7, 1], ids=["whole", "sevens", "bytes"])
def test_like_memcached(plain, name, step):
    stream = ALIKE[name]
    if step < 100 and len(stream) > 5000:
        step *= 10000
    for left in reversed(range(4)):  # the clock of one may tick between a TTL and the look at it; a real difference is there each time
        for server in (plain.node, plain.reference):
            assert server.command(b"flush_all\r\n") == b"OK\r\n"
        answer, expected = ask(plain.outrigger.port, stream, step), ask(plain.reference.port, stream)
        if answer == expected or left == 0:
            break
    assert answer == expected


def test_large_values(plain):
    """What is passed on by reference, between heads and tails that are not."""
    value = b"large" * 20000
    stream = b"ms large %d F7\r\n%s\r\n" % (len(value), value) + b"mg large v k f Oa s\r\nmg large s\r\nmg large v\r\nmg x v\r\n" * 3
    answer = ask(plain.outrigger.port, stream)
    assert answer == ask(plain.reference.port, stream) and answer.count(value) == 6


def test_a_pipeline_of_quiet_requests(plain):
    """What a client does instead of a multi-get: only hits are answered, and mn tells it that there are no more."""
    with Wire(plain.outrigger.port) as wire:
        wire.send(b"".join(b"ms pipe%d 1 q\r\nv\r\n" % n for n in range(0, 1000, 10)))
        wire.send(b"".join(b"mg pipe%d v q k O%d\r\n" % (n, n) for n in range(1000)) + b"mn\r\n")
        assert wire.until(b"MN\r\n") == b"".join(b"VA 1 kpipe%d O%d\r\nv\r\n" % (n, n) for n in range(0, 1000, 10)) + b"MN\r\n"


def test_versions_are_uniques(plain):
    """Unless the client chooses it, an entry's unique is a version of ours, and what is made later has a greater one; but a number whose
    unique is asked for keeps to the node's, since memcached answers a version even where it has not given it."""
    with Wire(plain.outrigger.port) as wire:
        def unique(request):
            return int(re.search(rb" c(\d+)", wire.ask(request))[1])
        uniques = [unique(b"ms u 1 c\r\n1\r\n"), unique(b"ms u 1 MA c\r\n2\r\n"), unique(b"mg uu N30 c\r\n")]
        assert wire.ask(b"ma u\r\n") == b"HD\r\n"
        uniques.append(unique(b"mg u c\r\n"))
        numbers = [unique(b"ma u c\r\n"), unique(b"mg u c\r\n"), unique(b"ma um N0 c\r\n")]
        assert numbers[0] == numbers[1] < numbers[2] < 1 << 50
        assert wire.ask(b"md u I\r\n") == b"HD\r\n"
        uniques.append(unique(b"mg u c\r\n"))
        assert uniques == sorted(set(uniques)) and min(uniques) > 1 << 50
        assert wire.gets("u")[2] == uniques[-1]
        assert wire.ask(b"md u x\r\n") == b"HD\r\n" and unique(b"mg u c\r\n") == uniques[-1], "as memcached: only the value is gone"


def test_an_entry_is_the_same_in_both_protocols(plain):
    with Wire(plain.outrigger.port) as wire:
        assert wire.ask(b"ms %s 2 b F9\r\nhi\r\n" % b64(b"both")) == b"HD\r\n"
        assert wire.gets("both")[:2] == (b"hi", 9)
        assert wire.ask(b"mg both v k f\r\n", b"hi\r\n") == b"VA 2 kboth f9\r\nhi\r\n"
        assert wire.set("bo\tth", b"tab", 3) == b"STORED\r\n"
        assert wire.ask(b"mg %s b v f k\r\n" % b64(b"bo\tth"), b"tab\r\n") == b"VA 3 f3 k%s b\r\ntab\r\n" % b64(b"bo\tth")


def test_the_key_comes_back_as_it_was_sent(plain):
    """Unlike memcached's mg, which writes it as whoever stored the entry did."""
    with Wire(plain.outrigger.port) as wire:
        assert wire.ask(b"ms plain-key 1\r\nx\r\n") == b"HD\r\n"
        assert wire.ask(b"mg %s b k\r\n" % b64(b"plain-key")) == b"HD k%s b\r\n" % b64(b"plain-key")
        assert wire.ask(b"me %s b\r\n" % b64(b"plain-key")).startswith(b"ME %s exp=-1 " % b64(b"plain-key"))
        assert wire.ask(b"ms %s 1 b\r\nx\r\n" % b64(b"a b")) == b"HD\r\n"
        assert wire.ask(b"me %s b\r\n" % b64(b"a b")).startswith(b"ME %s exp=-1 " % b64(b"a b"))


def test_me_does_not_show_what_could_be_replies(plain):
    """A node shows the key of an entry that N has made as it is: an answer of several lines would be taken for those to other requests."""
    key = b64(b"x exp=1\r\nVA 4\r\nfake\r\n")
    with Wire(plain.outrigger.port) as wire:
        assert wire.ask(b"mg %s b N30 k\r\n" % key) == b"HD k%s b W\r\n" % key
        wire.send(b"me %s b\r\nmg not-there v\r\nmn\r\n" % key)
        assert wire.until(b"MN\r\n") == b"CLIENT_ERROR me can not show a key with line ends\r\nEN\r\nMN\r\n"


def test_ma_that_makes_an_entry_is_quiet(plain):
    """Unlike memcached, where q hides only the change of what was there: no reply of a node's tells the two apart."""
    assert ask(plain.outrigger.port, b"ma made-quietly N0 J5 q\r\nma made-quietly v\r\n") == b"VA 1\r\n6\r\n"
    assert ask(plain.reference.port, b"ma made-quietly N0 J5 q\r\nma made-quietly v\r\n") == b"HD\r\nVA 1\r\n6\r\n"


# ---- read-through

@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory / "through", outriggers=1) as through:
        yield through


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


@pytest.fixture
def row(west):
    """A row of its own, and its key in the namespace version:, whose entries live for ever."""
    name = west.fresh()
    return name, b"version:" + name.encode()


def test_through_mg(west, wire, growth):
    key = b"package:" + west.fresh().encode()

    def read():
        head = wire.ask(b"mg %s v k O12 f s t h l c\r\n" % key)
        words = head.split()
        assert words[0] == b"VA" and [w[:1] for w in words[2:]] == [b"k", b"O", b"f", b"s", b"t", b"h", b"l", b"c"]
        assert words[2:6] == [b"k" + key, b"O12", b"f0", b"s" + words[1]]
        value = wire.read(int(words[1]) + 2)
        assert json.loads(value)["version"] == "old"
        return {w[:1]: int(w[1:]) for w in words[6:]}
    first = read()
    assert first[b"h"] == 0 and first[b"l"] == 0 and 3500 < first[b"t"] <= 3600
    until(lambda: west.is_cached(key.decode()), "cached")
    second = read()
    assert 3500 < second[b"t"] <= 3600 and second[b"c"] == first[b"c"] and read()[b"h"] == 1
    growth.becomes(misses=1, loads=1, fills=1, hits=2)
    assert wire.ask(b"mg %s\r\n" % key) == b"HD\r\n"
    assert wire.ask(b"mg %s q f\r\n" % key) == b"HD f0\r\n"


def test_through_misses(wire, west):
    assert ask(west.port, b"mg version:nobody v\r\nmg version:nobody k O1 v f c t\r\nmg version:nobody v q k\r\n") == b"EN\r\nEN kversion:nobody O1\r\n"
    assert wire.ask(b"mg %s b k\r\n" % b64(b"version:no body\n")) == b"EN k%s b\r\n" % b64(b"version:no body\n")


def test_through_leases_are_not_the_clients(wire, west, row):
    """N, R and E are ours there: a client neither makes an empty entry nor is told to load one."""
    name, key = row
    assert wire.ask(b"mg %s v N30 E7 R30\r\n" % key, b"old\r\n") == b"VA 3\r\nold\r\n"
    until(lambda: west.is_cached(key.decode()), "cached")
    assert wire.ask(b"mg %s v R4000000 t\r\n" % key, b"old\r\n") == b"VA 3 t-1\r\nold\r\n"
    assert wire.ask(b"mg version:nobody-n N30 v\r\n") == b"EN\r\n"
    assert wire.ask(b"md %s\r\n" % key) == b"HD\r\n"
    west.update(name)
    assert wire.ask(b"mg %s v\r\n" % key, b"new\r\n") == b"VA 3\r\nnew\r\n"  # no X, no W


def test_through_mg_touches(wire, west, row):
    _, key = row
    assert wire.ask(b"mg %s v T100 t\r\n" % key, b"old\r\n") == b"VA 3 t100\r\nold\r\n"
    until(lambda: west.is_cached(key.decode()) and 90 < int(west.item(key.decode())["t"]) <= 100, "the TTL of the mg that loaded")
    assert wire.ask(b"mg %s t T1000\r\n" % key) == b"HD t1000\r\n"
    until(lambda: 900 < int(west.item(key.decode())["t"]) <= 1000, "the TTL of the mg that hit")
    assert wire.ask(b"mg %s T0 t\r\n" % key) == b"HD t-1\r\n"
    until(lambda: west.item(key.decode())["t"] == "-1", "no TTL")


def test_through_ms_is_an_invalidation(wire, west, row, growth):
    name, key = row
    assert wire.get(key.decode()) == b"old"
    west.update(name)
    answer = wire.ask(b"ms %s 5 k O1 c s T100 F3 E5 I\r\nwrong\r\n" % key)
    assert re.fullmatch(rb"HD k%s O1 c\d{10,} s5\r\n" % key, answer)
    assert wire.get(key.decode()) == b"new"
    assert wire.ask(b"ms %s 5 MS q\r\nwrong\r\nmn\r\n" % key) == b"MN\r\n"
    assert wire.get(key.decode()) == b"new"
    growth.becomes(tombstones=2, loads=3)


def test_through_cas(wire, west, row):
    name, key = row
    assert wire.ask(b"ms %s 1 C5 c k s\r\nx\r\n" % key) == b"NF c0 k%s s1\r\n" % key
    assert wire.ask(b"md %s C5 k q\r\n" % key) == b"NF k%s\r\n" % key
    assert wire.get(key.decode()) == b"old"
    until(lambda: west.is_cached(key.decode()), "cached")
    unique = int(wire.ask(b"mg %s c\r\n" % key).split(b" c")[1])
    assert wire.ask(b"ms %s 1 C%d q c\r\nx\r\n" % (key, unique - 1)) == b"EX c0\r\n"
    assert wire.ask(b"md %s C%d O2\r\n" % (key, unique - 1)) == b"EX O2\r\n" and wire.get(key.decode()) == b"old"
    west.update(name)
    assert wire.ask(b"ms %s 1 C%d\r\nx\r\n" % (key, unique)) == b"HD\r\n" and wire.get(key.decode()) == b"new"
    until(lambda: west.is_cached(key.decode()), "cached")
    unique = int(wire.ask(b"mg %s c\r\n" % key).split(b" c")[1])
    west.update(name, "newer")
    assert wire.ask(b"md %s C%d\r\n" % (key, unique)) == b"HD\r\n" and wire.get(key.decode()) == b"newer"


@pytest.mark.parametrize("flags", [b"", b" I", b" x", b" I x T30 E5 F1"])
def test_through_md(wire, west, row, flags):
    name, key = row
    assert wire.ask(b"md %s%s k O1\r\n" % (key, flags)) == b"HD k%s O1\r\n" % key  # it can not be known that nobody is loading it
    assert wire.get(key.decode()) == b"old"
    west.update(name)
    assert wire.ask(b"md %s%s q\r\nmn\r\n" % (key, flags)) == b"MN\r\n"
    assert wire.get(key.decode()) == b"new"


@pytest.mark.parametrize("request_", [b"ms %s 1 ME q\r\nx\r\n", b"ms %s 1 MR\r\nx\r\n", b"ms %s 1 MA\r\nx\r\n", b"ms %s 1 MP N5\r\nx\r\n", b"ma %s q\r\n",
                                      b"ma %s MD v N0\r\n"])
def test_through_what_means_nothing_there(wire, growth, request_):
    assert wire.ask(request_ % b"version:p9") == b"SERVER_ERROR namespace version is read-through: write the database, then delete the key\r\n"
    assert wire.get("version:p9") == b"v9"
    assert growth.of("outrigger_errors_total", source="client", error="unsupported") == 1


def test_through_too_large(wire, west, row):
    """Nothing is stored there anyway, but the client has said that the key has changed."""
    name, key = row
    assert wire.get(key.decode()) == b"old"
    west.update(name)
    size = 2 << 20
    assert wire.ask(b"ms %s %d q\r\n%s\r\n" % (key, size, b"x" * size)) == b"SERVER_ERROR object too large for cache\r\n"
    assert wire.get(key.decode()) == b"new"


def test_through_me(wire, west, row):
    _, key = row
    assert wire.ask(b"me %s\r\n" % key) == b"EN\r\n"
    assert wire.get(key.decode()) == b"old"
    until(lambda: west.is_cached(key.decode()), "cached")
    assert wire.ask(b"me %s\r\n" % key).startswith(b"ME %s exp=-1 la=" % key)


def test_through_in_one_pipeline(wire, west, row):
    """No mg overtakes the md before it."""
    name, key = row
    assert wire.get(key.decode()) == b"old"
    west.update(name)
    wire.send(b"md %s q\r\nmg %s v q\r\nmg version:nobody v q\r\nmn\r\n" % (key, key))
    assert wire.until(b"MN\r\n") == b"VA 3\r\nnew\r\nMN\r\n"
