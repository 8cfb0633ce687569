"""Read-through namespaces: what is loaded, how it looks, how long it stays, and what each command does there."""

import json

import pytest

from support import Growth, Wire, until
from through import through_region


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, outriggers=1) as through:
        yield through


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


# ---- loading

def test_miss_load_hit(wire, growth):
    row = {"name": "p1", "version": "v1", "size": 1, "ratio": 0.125, "note": None}
    assert json.loads(wire.get("package:p1")) == row
    growth.becomes(misses=1, lease_wins=1, loads=1, fills=1, hits=0)
    assert json.loads(wire.get("package:p1")) == row
    growth.becomes(misses=1, lease_wins=1, loads=1, fills=1, hits=1)


def test_columns_as_json(wire, west):
    """In the order of the configuration, numbers as numbers, NULL as null, text as it is."""
    west.query("INSERT INTO packages VALUES ('odd', 'quo\"te \\\\ back', 4294967295, -1.5e300, 'ünïcödé\t\n\U0001F40D')")
    text = wire.get("package:odd").decode()
    assert list(json.loads(text)) == ["name", "version", "size", "ratio", "note"]
    assert json.loads(text) == {"name": "odd", "version": 'quo"te \\ back', "size": 4294967295, "ratio": -1.5e300, "note": "ünïcödé\t\n\U0001F40D"}


def test_one_column_as_it_is(wire, west):
    value = bytes(range(256)) + b"\r\nEND\r\n"
    west.query("INSERT INTO texts VALUES ('binary', %s, NULL, NULL), ('empty', '', 7, NULL), ('null', NULL, 1, NULL)", (value,))
    for _ in range(2):
        assert wire.get("text:binary") == value
        assert wire.gets("text:empty")[:2] == (b"", 7)
        assert wire.get("text:null") is None


def test_flags_column(wire, west):
    west.query("INSERT INTO texts VALUES ('flags', 'x', 4294967295, NULL), ('no-flags', 'x', NULL, NULL)")
    for _ in range(2):
        assert wire.gets("text:flags")[:2] == (b"x", 4294967295)
        assert wire.gets("text:no-flags")[:2] == (b"x", 0)


def test_expires_column(wire, west):
    west.query("INSERT INTO texts VALUES ('past', 'x', 0, NOW(3) - INTERVAL 1 SECOND), ('soon', 'x', 0, NOW(3) + INTERVAL 6 SECOND), "
               "('later', 'x', 0, NOW(3) + INTERVAL 100 SECOND)")
    assert wire.get("text:past") is None
    assert wire.get("text:soon") == b"x"
    assert wire.get("text:later") == b"x" and until(lambda: west.is_cached("text:later"), "cached") and 0 < int(west.item("text:later")["t"]) <= 100
    until(lambda: wire.get("text:soon") is None, "the row having expired")


def test_numeric_keys_are_exact(wire, west):
    """What the database calls equal is not enough: 01 is not 1."""
    west.query("INSERT INTO numbers VALUES (1, 'one'), (-5, 'minus five'), (9223372036854775807, 'most')")
    for key, value in {"1": b"one", "-5": b"minus five", "9223372036854775807": b"most"}.items():
        assert wire.get("number:" + key) == value
    for key in ("01", "1.0", "+1", "1x", "0x1", "1e0", "x", "-0", "9223372036854775808", "99999999999999999999", "1;DROP", "", "\u0661"):
        assert wire.get("number:" + key) is None, key


def test_text_keys_are_exact(wire, west):
    """A case-insensitive collation that ignores trailing spaces finds more than was asked for."""
    west.query("INSERT INTO words VALUES ('Straße', 'street'), ('ABC', 'capitals')")
    assert wire.get("word:Straße") == b"street" and wire.get("word:ABC") == b"capitals"
    for key in ("strasse", "STRASSE", "Strasse", "straße", "abc", "ABc", "ÀBC", "ABC\t", "%", "_BC", "'", "\\"):
        assert wire.get("word:" + key) is None, key
    assert wire.ask(b"get word:\xff\xfe\r\n") == b"END\r\n"  # not UTF-8, so no such text


def test_hostile_keys(wire, west):
    for key in ("p1'", 'p1"', "p1`", "p1'--", "p1'OR'1'='1", "p1\\", "x'UNION/**/SELECT/**/1", "%", "p_", "p1\0".replace("\0", "\x01")):
        assert wire.get("version:" + key) is None, key
    assert wire.get("version:p1") == b"v1"


def test_a_prefix_alone_is_a_key_without_row(wire):
    assert wire.get("package:") is None


# ---- absence

def test_absence_is_remembered(wire, west, growth):
    assert [wire.get("package:none") for _ in range(3)] == [None] * 3
    growth.becomes(misses=1, loads=1, negative_hits=2, hits=0)
    west.query("INSERT INTO packages (name, version) VALUES ('none', 'now')")
    assert wire.get("package:none") is None
    assert wire.delete("package:none") == b"DELETED\r\n"
    assert json.loads(wire.get("package:none"))["version"] == "now"


def test_absence_is_not_remembered_without_negative_ttl(wire, west, growth):
    assert [wire.get("forgetful:none-such") for _ in range(3)] == [None] * 3
    growth.becomes(loads=3, lease_wins=3, negative_hits=0)
    until(lambda: west.item("forgetful:none-such") is None, "the lease being given back, behind the answer")


def test_an_empty_row_that_looks_like_absence(wire, west, growth):
    """A row with an empty value and the flags that say "there is no row" must be answered all the same."""
    west.query("INSERT INTO texts VALUES ('trap', '', %s, NULL)", (0x4e4f4e45,))
    for _ in range(3):
        assert wire.gets("text:trap")[:2] == (b"", 0x4e4f4e45)
    growth.becomes(loads=3)


# ---- time

def test_ttl(wire, west):
    assert wire.get("package:p5") and until(lambda: west.is_cached("package:p5"), "cached")
    assert 3500 < int(west.item("package:p5")["t"]) <= 3600
    assert wire.get("version:p5") and until(lambda: west.is_cached("version:p5"), "cached")
    assert west.item("version:p5")["t"] == "-1"


def test_an_entry_ends_with_its_ttl(wire, west):
    name = west.fresh()
    assert wire.get("fleeting:" + name) == b"old"
    west.update(name)
    until(lambda: wire.get("fleeting:" + name) == b"new", "the new row, without a delete")


# ---- invalidation

def test_delete(wire, west, growth):
    name = west.fresh()
    key = "version:" + name
    assert wire.get(key) == b"old"
    west.update(name)
    assert wire.get(key) == b"old"  # nobody has said anything
    assert wire.delete(key) == b"DELETED\r\n"
    assert wire.get(key) == b"new" and wire.get(key) == b"new"
    growth.becomes(loads=2, tombstones=1, fills=2, hits=2)


def test_delete_of_what_is_not_cached(wire, west):
    """The cache can not know whether another sidecar is just loading it, so it is never NOT_FOUND."""
    name = west.fresh()
    for _ in range(3):
        assert wire.delete("version:" + name) == b"DELETED\r\n"
    assert wire.get("version:" + name) == b"old"
    assert wire.delete("version:no-such-row") == b"DELETED\r\n" and wire.get("version:no-such-row") is None


def test_deletes_and_gets_in_one_pipeline(wire, west):
    """A get does not overtake the delete before it."""
    names = [west.fresh() for _ in range(20)]
    assert [wire.get("version:" + name) for name in names] == [b"old"] * 20
    west.query("UPDATE packages SET version = 'new' WHERE name IN %s", (names,))
    wire.send(b"".join(b"delete version:%s\r\nget version:%s\r\n" % ((n.encode(),) * 2) for n in names))
    for name in names:
        assert wire.until(b"END\r\n") == b"DELETED\r\nVALUE version:%s 0 3\r\nnew\r\nEND\r\n" % name.encode()


def test_deleted_row(wire, west):
    name = west.fresh()
    assert wire.get("version:" + name) == b"old"
    west.query("DELETE FROM packages WHERE name = %s", (name,))
    assert wire.delete("version:" + name) == b"DELETED\r\n"
    assert wire.get("version:" + name) is None


def test_noreply(wire, west):
    name = west.fresh()
    key = b"version:" + name.encode()
    assert wire.get(key.decode()) == b"old"
    west.update(name)
    wire.send(b"add %s 0 0 1 noreply\r\nx\r\nincr %s 1 noreply\r\ntouch %s 100 noreply\r\ndelete %s noreply\r\n" % ((key,) * 4))
    assert wire.get(key.decode()) == b"new"
    west.update(name, "newer")
    wire.send(b"set %s 0 0 5 noreply\r\nwrong\r\n" % key)
    assert wire.get(key.decode()) == b"newer"


# ---- other commands

def test_set_is_an_invalidation(wire, west):
    """The client's value is not stored: nobody knows when it was true. The next reader loads the row."""
    name = west.fresh()
    assert wire.get("version:" + name) == b"old"
    west.update(name)
    assert wire.set("version:" + name, b"whatever") == b"STORED\r\n"
    assert wire.get("version:" + name) == b"new"


def test_cas(wire, west):
    name = west.fresh()
    key = "version:" + name

    def cas(unique):
        return wire.ask(b"cas %s 0 0 1 %d\r\nx\r\n" % (key.encode(), unique))
    assert cas(1) == b"NOT_FOUND\r\n"
    assert wire.get(key) == b"old"
    unique = wire.gets(key)[2]
    west.update(name)
    assert cas(unique + 1) == b"EXISTS\r\n" and cas(0) == b"EXISTS\r\n" and wire.get(key) == b"old"
    assert cas(unique) == b"STORED\r\n" and wire.get(key) == b"new"
    assert cas(unique) == b"EXISTS\r\n"
    assert wire.delete(key) == b"DELETED\r\n" and cas(unique) == b"NOT_FOUND\r\n"
    assert wire.get(key) == b"new"  # the lease that cas saw was given back


@pytest.mark.parametrize("command", [b"add %s 0 0 1\r\nx\r\n", b"replace %s 0 0 1\r\nx\r\n", b"append %s 0 0 1\r\nx\r\n", b"prepend %s 0 0 1\r\nx\r\n",
                                     b"incr %s 1\r\n", b"decr %s 1\r\n"])
def test_commands_that_mean_nothing_here(wire, west, growth, command):
    answer = wire.ask(command % b"version:p9")
    assert answer == b"SERVER_ERROR namespace version is read-through: write the database, then delete the key\r\n"
    assert wire.get("version:p9") == b"v9"
    assert growth.of("outrigger_errors_total", source="client", error="unsupported") == 1


def test_touch(wire, west, growth):
    name = west.fresh()
    key = "version:" + name
    assert wire.ask(b"touch %s 100\r\n" % key.encode()) == b"NOT_FOUND\r\n"
    assert growth.of("outrigger_loads_total") == 0 and west.item(key) is None
    assert wire.get(key) == b"old" and until(lambda: west.is_cached(key), "cached")
    unique = wire.gets(key)[2]
    assert wire.ask(b"touch %s 100\r\n" % key.encode()) == b"TOUCHED\r\n"
    assert 90 < int(west.item(key)["t"]) <= 100 and wire.gets(key) == (b"old", 0, unique)
    assert wire.ask(b"touch %s 0\r\n" % key.encode()) == b"TOUCHED\r\n" and west.item(key)["t"] == "-1"
    west.update(name)
    assert wire.ask(b"touch %s -1\r\n" % key.encode()) == b"TOUCHED\r\n"
    assert wire.get(key) == b"new"
    wire.delete(key)
    assert wire.ask(b"touch %s 100\r\n" % key.encode()) == b"NOT_FOUND\r\n"  # a tombstone keeps its own time
    assert wire.get(key) == b"new"


def test_touch_of_a_remembered_absence(wire):
    assert wire.get("version:not-there") is None
    assert wire.ask(b"touch version:not-there 100\r\n") == b"NOT_FOUND\r\n"


def test_gat(wire, west):
    name = west.fresh()
    key = "version:" + name
    found = b"VALUE %s 0 3\r\nold\r\nEND\r\n" % key.encode()
    assert wire.ask(b"gat 100 %s\r\n" % key.encode(), b"END\r\n") == found  # a miss is loaded, and gets that TTL
    until(lambda: west.is_cached(key) and 90 < int(west.item(key)["t"]) <= 100, "the TTL of the gat that loaded")
    assert wire.ask(b"gat 1000 %s\r\n" % key.encode(), b"END\r\n") == found
    until(lambda: 900 < int(west.item(key)["t"]) <= 1000, "the TTL of the gat that hit")
    unique = wire.gets(key)[2]
    assert wire.ask(b"gats 0 %s\r\n" % key.encode(), b"END\r\n") == b"VALUE %s 0 3 %d\r\nold\r\nEND\r\n" % (key.encode(), unique)
    until(lambda: west.item(key)["t"] == "-1", "no TTL")
    assert wire.ask(b"gat 100 version:no-such-row\r\n") == b"END\r\n"


def test_multi_get(wire, west, growth):
    keys = [f"version:p{i}" for i in range(500, 600)] + ["version:absent1", "aside", "version:absent2"]
    wire.set("aside", b"beside")
    expected = b"".join(b"VALUE version:p%d 0 4\r\nv%d\r\n" % (i, i) for i in range(500, 600)) + b"VALUE aside 0 6\r\nbeside\r\nEND\r\n"
    for _ in range(2):
        assert wire.ask(b"get " + " ".join(keys).encode() + b"\r\n", b"END\r\n") == expected
    growth.becomes(loads=102, hits=102, negative_hits=2, fills=102)


def test_same_key_twice_in_one_get(wire, west, growth):
    name = west.fresh()
    line = b"VALUE version:%s 0 3\r\nold\r\n" % name.encode()
    assert wire.ask(b"get %s %s %s\r\n" % ((b"version:" + name.encode(),) * 3), b"END\r\n") == line * 3 + b"END\r\n"
    growth.becomes(loads=1)


def test_flush_all(wire, west):
    name = west.fresh()
    assert wire.get("version:" + name) == b"old"
    west.update(name)
    assert wire.ask(b"flush_all\r\n") == b"OK\r\n"
    assert wire.get("version:" + name) == b"new"


# ---- sizes

@pytest.mark.parametrize("size", [0, 1, 511, 512, 2047, 2048, 16_384, 100_000, 1_000_000, 1_048_000])
def test_values_of_many_sizes(wire, west, growth, size):
    west.query("INSERT INTO texts VALUES (%s, REPEAT('x', %s), 3, NULL)", (f"size{size}", size))
    for _ in range(3):
        assert wire.gets(f"text:size{size}")[:2] == (b"x" * size, 3)
    growth.becomes(loads=1, fills=1, hits=2)


def test_value_larger_than_an_item_of_the_node(wire, west, growth):
    """Answered each time, never stored, and nobody waits for a lease that is of no use."""
    west.query("INSERT INTO texts VALUES ('item', REPEAT('x', 1048576), 3, NULL)")
    for _ in range(3):
        assert wire.gets("text:item")[:2] == (b"x" * 1048576, 3)
    growth.becomes(loads=3, hits=0, fills=0, lease_timeouts=0)
    growth.reaches(3, "outrigger_errors_total", source="node", error="remote")  # the last is told behind the answer
    assert growth.of("outrigger_errors_total", source="node", error="remote") == 3


def test_value_larger_than_the_sidecar_takes(wire, west, growth):
    west.query("INSERT INTO texts VALUES ('huge', REPEAT('x', 1048577), 3, NULL)")
    for _ in range(3):
        assert wire.ask(b"get text:huge\r\n").startswith(b"SERVER_ERROR database: too large: namespace text, table texts: ")
    assert growth.of("outrigger_loads_total", namespace="text", result="failed") == 3
    growth.becomes(lease_waits=0)
    west.query("UPDATE texts SET v = 'small' WHERE k = 'huge'")
    assert wire.get("text:huge") == b"small"


def test_a_json_object_larger_than_the_sidecar_takes(wire, west):
    west.query("ALTER TABLE packages MODIFY note LONGTEXT")  # under the prepared statement, too
    west.query("INSERT INTO packages VALUES ('huge', REPEAT('v', 100), 1, 1, REPEAT('n', 1048570))")
    assert wire.ask(b"get package:huge\r\n").startswith(b"SERVER_ERROR database: too large: ")
    assert wire.get("package:p77") is not None


def test_a_table_that_is_not_what_was_configured(wire, west):
    """The error names namespace and table; once the table is right, so are the answers."""
    west.query("RENAME TABLE words TO away")
    try:
        assert wire.ask(b"get word:lost\r\n").startswith(b"SERVER_ERROR database: database error: namespace word, table words: ")
    finally:
        west.query("RENAME TABLE away TO words")
    assert wire.get("word:lost") is None
