"""`write: through`: what is STORED is in MySQL, in this region's cache and told to the others; what is not is nowhere."""

import pytest

from local import schema
from support import Growth, Wire, connected, in_threads, until
from through import NAMESPACES, SCHEMA, _namespace, prepare, through_region

MORE = [
    {"prefix": "e:", "read": "through", "write": "through", "source": "entries", "lease_wait": "8s"},
    {**_namespace("t:", "texts", "k", "v", source={"flags_column": "flags", "expires_column": "expires"}), "write": "through"},
    {**_namespace("p:", "packages", "name", ["version", "size"]), "write": "through"},
    {**_namespace("n:", "numbers", "id", "v"), "write": "through"},
]
ERROR = b"SERVER_ERROR"


def _prepare(db):
    prepare(db)
    schema.create(db, SCHEMA)


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, config={"namespaces": NAMESPACES + MORE, "database": {"timeout": "2s", "threads": 4}}, prepare=_prepare) as through:
        yield through


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


@pytest.fixture
def other(west):
    with Wire(west.outriggers[1].port) as wire:
        yield wire


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


def row(west, key):
    rows = west.query("SELECT value, flags, expires_at FROM outrigger_entries WHERE cache_key = %s", (key,))
    return rows[0] if rows else None


# ---- the built-in table

def test_set_is_in_the_database_and_a_hit_everywhere(west, wire, other, growth):
    assert wire.set("e:set", b"value", flags=7) == b"STORED\r\n"
    assert row(west, "e:set")["value"] == b"value" and row(west, "e:set")["flags"] == 7
    assert other.gets("e:set")[:2] == (b"value", 7)
    growth.becomes(loads=0, hits=1)
    assert wire.set("e:set", b"second") == b"STORED\r\n"
    assert other.get("e:set") == b"second"
    growth.becomes(loads=0, hits=2)


def test_values_of_any_bytes(west, wire, other):
    for value in (b"", b"\r\n", bytes(range(256)), b"x" * 500_000):
        assert wire.set("e:bytes", value) == b"STORED\r\n"
        assert other.get("e:bytes") == value
        assert row(west, "e:bytes")["value"] == value


def test_set_over_an_entry_that_was_loaded(west, wire, other):
    assert wire.set("e:over", b"1") == b"STORED\r\n"
    west.query("UPDATE outrigger_entries SET value = 'sql' WHERE cache_key = 'e:over'")
    with Wire(west.nodes[0].port) as node0, Wire(west.nodes[1].port) as node1:
        node0.delete("e:over"), node1.delete("e:over")
    assert other.get("e:over") == b"sql"
    assert wire.set("e:over", b"2") == b"STORED\r\n"
    assert other.get("e:over") == b"2"


def test_delete(west, wire, other):
    assert wire.delete("e:deleted") == b"DELETED\r\n"
    assert wire.set("e:deleted", b"x") == b"STORED\r\n"
    assert wire.delete("e:deleted") == b"DELETED\r\n"
    assert row(west, "e:deleted") is None
    assert other.get("e:deleted") is None


def test_add_and_replace(west, wire, other):
    assert wire.ask(b"replace e:ar 0 0 1\r\nr\r\n") == b"NOT_STORED\r\n"
    assert other.get("e:ar") is None
    assert wire.ask(b"add e:ar 3 0 1\r\na\r\n") == b"STORED\r\n"
    assert other.gets("e:ar")[:2] == (b"a", 3)
    assert wire.ask(b"add e:ar 0 0 1\r\nb\r\n") == b"NOT_STORED\r\n"
    assert other.get("e:ar") == b"a"
    assert wire.ask(b"replace e:ar 0 0 1\r\nr\r\n") == b"STORED\r\n"
    assert other.get("e:ar") == b"r" and row(west, "e:ar")["value"] == b"r"


def test_append_and_prepend(west, wire, other):
    assert wire.ask(b"append e:ap 0 0 1\r\nx\r\n") == b"NOT_STORED\r\n"
    assert wire.set("e:ap", b"m", flags=5) == b"STORED\r\n"
    assert wire.ask(b"append e:ap 0 0 1\r\nz\r\n") == b"STORED\r\n"
    assert wire.ask(b"prepend e:ap 0 0 1\r\na\r\n") == b"STORED\r\n"
    assert other.gets("e:ap")[:2] == (b"amz", 5)
    assert row(west, "e:ap")["value"] == b"amz"


def test_incr_and_decr(west, wire, other):
    assert wire.ask(b"incr e:n 1\r\n") == b"NOT_FOUND\r\n"
    assert wire.set("e:n", b"10") == b"STORED\r\n"
    assert wire.ask(b"incr e:n 5\r\n") == b"15\r\n"
    assert other.get("e:n") == b"15"
    assert other.ask(b"decr e:n 20\r\n") == b"0\r\n"
    assert wire.get("e:n") == b"0" and row(west, "e:n")["value"] == b"0"
    assert wire.set("e:n", b"none") == b"STORED\r\n"
    assert wire.ask(b"incr e:n 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert wire.get("e:n") == b"none"


def test_counters_of_many_clients_lose_nothing(west, wire):
    assert wire.set("e:count", b"0") == b"STORED\r\n"

    def count(i):
        with Wire(west.outriggers[i % 2].port) as mine:
            return [mine.ask(b"incr e:count 1\r\n") for _ in range(10)]
    answers = in_threads([lambda i=i: count(i) for i in range(10)])
    assert sorted(int(a) for many in answers for a in many) == list(range(1, 101))
    assert wire.get("e:count") == b"100"


def test_cas(west, wire, other):
    assert wire.ask(b"cas e:cas 0 0 1 5\r\nx\r\n") == b"NOT_FOUND\r\n"
    assert wire.set("e:cas", b"1", flags=2) == b"STORED\r\n"
    _, _, unique = other.gets("e:cas")
    assert wire.ask(b"cas e:cas 0 0 1 %d\r\nx\r\n" % (unique + 1)) == b"EXISTS\r\n"
    assert wire.ask(b"cas e:cas 0 0 1 %d\r\n2\r\n" % unique) == b"STORED\r\n"
    assert wire.ask(b"cas e:cas 0 0 1 %d\r\n3\r\n" % unique) == b"EXISTS\r\n"
    assert other.get("e:cas") == b"2" and row(west, "e:cas")["value"] == b"2"


def test_cas_sees_a_row_that_changed_behind_the_cache(west, wire):
    assert wire.set("e:behind", b"1") == b"STORED\r\n"
    _, _, unique = wire.gets("e:behind")
    west.query("UPDATE outrigger_entries SET value = 'sql' WHERE cache_key = 'e:behind'")
    assert wire.ask(b"cas e:behind 0 0 1 %d\r\n2\r\n" % unique) == b"EXISTS\r\n"
    assert row(west, "e:behind")["value"] == b"sql"
    assert wire.get("e:behind") == b"sql"  # the entry was shown to be wrong


def test_cas_of_many_clients_loses_nothing(west, wire):
    assert wire.set("e:race", b"0") == b"STORED\r\n"

    def add_one(i):
        with Wire(west.outriggers[i % 2].port) as mine:
            while True:
                try:
                    value, _, unique = mine.gets("e:race")
                except AssertionError:
                    continue
                after = b"%d" % (int(value) + 1)
                if mine.ask(b"cas e:race 0 0 %d %d\r\n%s\r\n" % (len(after), unique, after)) == b"STORED\r\n":
                    return
    in_threads([lambda i=i: add_one(i) for i in range(12)])
    assert wire.get("e:race") == b"12" and row(west, "e:race")["value"] == b"12"


def test_expiry(west, wire, other):
    assert wire.set("e:ttl", b"x", exptime=100) == b"STORED\r\n"
    assert row(west, "e:ttl")["expires_at"] is not None
    assert 0 < int(west.item("e:ttl")["t"]) <= 100
    assert wire.ask(b"touch e:ttl 1000\r\n") == b"TOUCHED\r\n"
    assert other.get("e:ttl") == b"x"
    assert int(west.item("e:ttl")["t"]) > 900
    assert wire.set("e:ttl", b"gone", exptime=-1) == b"STORED\r\n"
    assert other.get("e:ttl") is None
    assert wire.ask(b"touch e:ttl 1000\r\n") == b"NOT_FOUND\r\n"
    assert wire.set("e:ttl", b"soon", exptime=1) == b"STORED\r\n"
    until(lambda: other.get("e:ttl") is None, "the row has expired")


def test_gat(west, wire, other):
    assert wire.ask(b"gat 100 e:gat\r\n") == b"END\r\n"
    assert wire.set("e:gat", b"x") == b"STORED\r\n"
    assert other.ask(b"gat 100 e:gat\r\n", b"END\r\n") == b"VALUE e:gat 0 1\r\nx\r\nEND\r\n"
    assert row(west, "e:gat")["expires_at"] is not None


def test_pipelined_writes_of_one_client_keep_their_order(west, wire, other):
    wire.send(b"".join(b"set e:order 0 0 %d\r\n%d\r\n" % (len(str(i)), i) for i in range(50)))
    assert wire.read(50 * 8) == b"STORED\r\n" * 50
    assert other.get("e:order") == b"49" and row(west, "e:order")["value"] == b"49"


def test_noreply(west, wire):
    wire.send(b"set e:quiet 0 0 1 noreply\r\nx\r\n")
    assert wire.get("e:quiet") == b"x"


# ---- mapped tables

def test_mapped_value_with_flags_and_expiry(west, wire, other):
    assert wire.set("t:row", b"text", flags=9, exptime=1000) == b"STORED\r\n"
    rows = west.query("SELECT v, flags, expires FROM texts WHERE k = 'row'")
    assert rows[0]["v"] == b"text" and rows[0]["flags"] == 9 and rows[0]["expires"] is not None
    assert other.gets("t:row")[:2] == (b"text", 9)


def test_mapped_json(west, wire, other):
    assert wire.set("p:new", b'{"version": "v1", "size": 12}') == b"STORED\r\n"
    assert west.query("SELECT version, size FROM packages WHERE name = 'new'") == [{"version": "v1", "size": 12}]
    assert other.get("p:new") == b'{"version":"v1","size":12}'
    for bad in (b"no json", b'{"version": "v1"}', b'{"version": "v1", "size": "twelve", "more": 1}', b"[]"):
        assert wire.set("p:new", bad).startswith(ERROR), bad
    assert other.get("p:new") == b'{"version":"v1","size":12}'


def test_what_a_mapping_can_not_express(west, wire):
    assert wire.set("n:not-a-number", b"x").startswith(ERROR + b" namespace n:")
    assert wire.set("n:5", b"x", flags=1).startswith(ERROR + b" namespace n:")
    assert wire.set("n:5", b"y" * 51).startswith(ERROR)
    assert wire.get("n:5") is None
    assert wire.set("n:5", b"five") == b"STORED\r\n"
    assert wire.get("n:5") == b"five"


def test_expiry_that_a_mapping_has_no_column_for_is_the_entrys(west, wire, other):
    assert wire.set("n:77", b"x", exptime=100) == b"STORED\r\n"
    assert 0 < int(west.item("n:77")["t"]) <= 100
    assert wire.set("n:77", b"y", exptime=-1) == b"STORED\r\n"
    assert other.get("n:77") == b"y"  # from its row


# ---- what goes wrong

@pytest.mark.parametrize("line", [b"set e:big 0 0 %d", b"add e:big 0 0 %d", b"cas e:big 0 0 %d 1", b"ms e:big %d", b"ms e:big %d ME C1", b"append e:big 0 0 %d"])
def test_value_that_is_too_large_leaves_the_row(west, wire, other, line):
    assert wire.set("e:big", b"value") == b"STORED\r\n"
    length = 2 << 20
    assert wire.ask(line % length + b"\r\n" + b"x" * length + b"\r\n") == b"SERVER_ERROR object too large for cache\r\n"
    assert row(west, "e:big")["value"] == b"value"
    assert other.get("e:big") == b"value"



def test_write_that_the_database_refuses_is_nowhere(west, wire, other):
    assert wire.set("e:refused", b"before") == b"STORED\r\n"
    west.query("RENAME TABLE outrigger_entries TO away")
    try:
        assert wire.set("e:refused", b"after").startswith(ERROR)
        assert other.get("e:refused") == b"before"
    finally:
        west.query("RENAME TABLE away TO outrigger_entries")
    assert wire.set("e:refused", b"after") == b"STORED\r\n"
    assert other.get("e:refused") == b"after"


def test_write_that_hangs_is_not_stored_and_settled_later(west, wire, other, growth):
    """The deadline passes while another transaction has the row: an error, and whatever the database makes of it, the cache agrees in the end."""
    assert wire.set("e:hung", b"before") == b"STORED\r\n"
    blocker = west.primary.connect(SCHEMA)
    with blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT value FROM outrigger_entries WHERE cache_key = 'e:hung' FOR UPDATE")
        assert wire.set("e:hung", b"after").startswith(ERROR)
        cursor.execute("ROLLBACK")
    until(lambda: other.get("e:hung") == row(west, "e:hung")["value"], "cache and row agree")


def test_frozen_database(west, wire, other):
    """Hits go on; a write under way ends with an error and leaves no value that the database has not."""
    assert wire.set("e:frozen", b"before") == b"STORED\r\n"
    assert wire.set("e:hit", b"hit") == b"STORED\r\n"
    west.primary.process.pause()
    try:
        wire.send(b"set e:frozen 0 0 5\r\nafter\r\n")
        assert other.get("e:hit") == b"hit"
        assert wire.line().startswith(ERROR)
    finally:
        west.primary.process.resume()

    def agree():
        try:
            return other.get("e:frozen") == row(west, "e:frozen")["value"]
        except RuntimeError:
            return False
    until(agree, "cache and row agree")
    for _ in range(20):
        assert other.get("e:frozen") == row(west, "e:frozen")["value"]


def test_node_away(west, wire):
    """Nothing is written when the key's node can not be told of it."""
    assert wire.set("e:away", b"before") == b"STORED\r\n"
    node = west.node_of("e:away")
    node.process.kill()
    try:
        until(lambda: wire.set("e:away", b"after").startswith(ERROR + b" node"), "the node is seen to be away")
        assert row(west, "e:away")["value"] == b"before"
    finally:
        node.start()
    connected(node, *west.outriggers)
    assert wire.set("e:away", b"after") == b"STORED\r\n"
    assert wire.get("e:away") == b"after"


def test_readers_see_writes_in_order(west):
    """One writer that numbers its writes, readers on both sidecars: none sees an older one than was acknowledged before it asked."""
    acknowledged = [0]

    def write():
        with Wire(west.port) as wire:
            for i in range(1, 200):
                assert wire.set("e:numbered", b"%d" % i) == b"STORED\r\n"
                acknowledged[0] = i

    def read(port):
        with Wire(port) as wire:
            while acknowledged[0] < 199:
                least = acknowledged[0]
                seen = int(wire.get("e:numbered") or b"0")
                assert seen >= least
    in_threads([write] + [lambda s=s: read(s.port) for s in west.outriggers for _ in range(3)])


