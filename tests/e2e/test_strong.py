"""`consistency: strong`: once a write is answered no region serves what was before it; what is locked is read from the primary, by everybody and without an error."""

import http.client
from contextlib import closing

import pytest

from local import schema
from local.cluster import Cluster
from support import DEADLINE, Growth, Wire, in_threads, sees, wait

SCHEMA = "outrigger"
REGIONS = ("east", "west", "north")
CONFIG = {
    "threads": 2,
    "max_clock_skew": "100ms",
    "database": {"timeout": "4s"},
    "strong": {"lease": "2s", "lock_window": "7s", "prepare_timeout": "1s"},
    "namespaces": [
        {"prefix": "s:", "read": "through", "write": "through", "consistency": "strong", "source": "entries"},
        {"prefix": "a:", "read": "through", "consistency": "strong", "source": {"table": "packages", "key_column": "name", "value_column": "version"}},
        {"prefix": "n:", "read": "through", "write": "through", "consistency": "strong",
         "source": {"table": "numbers", "key_column": "name", "value_column": "value"}},
        {"prefix": "e:", "read": "through", "write": "through", "source": "entries"},
    ],
}


def _prepare(db):
    db.query("CREATE TABLE packages (name VARCHAR(200) PRIMARY KEY, version VARCHAR(100))", database=SCHEMA)
    db.query("CREATE TABLE numbers (name VARCHAR(200) PRIMARY KEY, value VARCHAR(100))", database=SCHEMA)
    schema.create(db, SCHEMA)


@pytest.fixture(scope="module")
def cluster(watch, directory):
    with Cluster(directory, regions=REGIONS, nodes=1, config=CONFIG, prepare=_prepare) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def in_order(cluster):
    """Every region serves hits: one that was slow is left out for a while."""
    for name in REGIONS:
        wait.until(lambda n=name: cluster[n].outrigger.metrics().total("outrigger_strong_serves") == 1, f"{name} serving hits", 60.0)


@pytest.fixture
def growth(cluster):
    return Growth(*(cluster[name].outrigger for name in REGIONS))


def query(cluster, sql, arguments=None):
    return cluster.primary.query(sql, arguments, SCHEMA)


def in_database(cluster, key):
    rows = query(cluster, "SELECT value FROM outrigger_entries WHERE cache_key = %s", (key,))
    return rows[0]["value"] if rows else None


def everywhere(wires, key):
    return {name: wire.get(key) for name, wire in wires.items()}


def cached(cluster, wires, key):
    """Reads until every region has the key cached. A write gives its locks up behind its answer, and what is locked is not stored."""
    for name, wire in wires.items():
        wait.until(lambda n=name, w=wire: (w.get(key), peek(cluster[n].outrigger, key))[1] == "hit", f"{key} cached in {name}")


def all_are(value):
    return dict.fromkeys(REGIONS, value)


class RowLock:
    """Somebody's transaction that has a row locked."""

    def __init__(self, cluster, sql, arguments):
        self._cluster = cluster
        self._connection = cluster.primary.connect(SCHEMA)
        with self._connection.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(sql + " FOR UPDATE", arguments)

    def holds(self):
        """Waits until somebody waits for it. InnoDB shows anew only what nobody has looked at for a tenth of a second."""
        def waits():
            return query(self._cluster, "SELECT COUNT(*) AS n FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")[0]["n"] > 0
        wait.until(waits, "a statement that waits for the row", DEADLINE, pause=0.15, longest_pause=0.15)

    def release(self):
        self._connection.close()


def peek(sidecar, key):
    """What the node has: hit, lock, tombstone, …"""
    with closing(http.client.HTTPConnection("127.0.0.1", sidecar.admin_port, timeout=DEADLINE)) as connection:
        connection.request("GET", f"/cache/{key}?peek=1")
        return connection.getresponse().headers["X-Outrigger-State"]


# ---- write: through

def test_a_write_is_read_everywhere_at_once(cluster, wires):
    for i in range(30):
        value = b"value %d" % i
        assert wires[REGIONS[i % 3]].set("s:set", value) == b"STORED\r\n"
        assert everywhere(wires, "s:set") == all_are(value)
    assert in_database(cluster, "s:set") == b"value 29"


def test_what_was_read_is_a_hit(cluster, wires):
    assert wires["east"].set("s:hit", b"x", flags=7) == b"STORED\r\n"
    cached(cluster, wires, "s:hit")
    seen = []

    def all_hit():  # a share may run out for a moment on a busy machine
        growth = Growth(*(cluster[name].outrigger for name in REGIONS))
        seen.extend(everywhere(wires, "s:hit") for _ in range(5))
        return [growth.of(f"outrigger_{name}_total") for name in ("loads", "hits", "strong_no_share")] == [0, 15, 0]
    wait.until(all_hit, "15 hits, and nothing else", 60.0)
    assert all(found == all_are(b"x") for found in seen)
    assert wires["west"].gets("s:hit")[:2] == (b"x", 7)


def test_nothing_is_published(wires, growth):
    assert wires["east"].set("s:quiet", b"1") == b"STORED\r\n"
    assert wires["east"].delete("s:quiet") == b"DELETED\r\n"
    assert wires["east"].delete("a:quiet") == b"DELETED\r\n"
    assert growth.of("outrigger_bus_published_total") == 0
    assert wires["east"].set("e:loud", b"1") == b"STORED\r\n"
    growth.reaches(1, "outrigger_bus_published_total")


def test_every_command(cluster, wires):
    east, west, north = (wires[name] for name in REGIONS)
    assert east.ask(b"replace s:c 0 0 1\r\nr\r\n") == b"NOT_STORED\r\n"
    assert everywhere(wires, "s:c") == all_are(None)
    assert west.ask(b"add s:c 3 0 1\r\nb\r\n") == b"STORED\r\n"
    assert everywhere(wires, "s:c") == all_are(b"b")
    assert north.ask(b"add s:c 3 0 1\r\nx\r\n") == b"NOT_STORED\r\n"
    assert east.ask(b"append s:c 0 0 1\r\nc\r\n") == b"STORED\r\n"
    assert everywhere(wires, "s:c") == all_are(b"bc")
    assert west.ask(b"prepend s:c 0 0 1\r\na\r\n") == b"STORED\r\n"
    assert everywhere(wires, "s:c") == all_are(b"abc")
    assert north.ask(b"incr s:c 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert everywhere(wires, "s:c") == all_are(b"abc")
    assert north.ask(b"touch s:c 1000\r\n") == b"TOUCHED\r\n"
    assert east.ask(b"gat 2000 s:c\r\n", b"END\r\n") == b"VALUE s:c 3 3\r\nabc\r\nEND\r\n"
    assert everywhere(wires, "s:c") == all_are(b"abc")
    assert east.delete("s:c") == b"DELETED\r\n"
    assert everywhere(wires, "s:c") == all_are(None)
    assert in_database(cluster, "s:c") is None
    assert west.ask(b"incr s:c 1\r\n") == b"NOT_FOUND\r\n"


def test_a_delete_takes_an_entry_without_a_row(cluster, wires):
    assert wires["east"].set("s:gone", b"x") == b"STORED\r\n"
    assert everywhere(wires, "s:gone") == all_are(b"x")
    query(cluster, "DELETE FROM outrigger_entries WHERE cache_key = 's:gone'")
    assert wires["west"].delete("s:gone") == b"DELETED\r\n"
    assert everywhere(wires, "s:gone") == all_are(None)


def test_a_mapped_table(cluster, wires):
    for i, name in enumerate(REGIONS * 2):
        assert wires[name].set("n:x", b"%d" % i) == b"STORED\r\n"
        assert everywhere(wires, "n:x") == all_are(b"%d" % i)
    assert wires["west"].ask(b"incr n:x 10\r\n") == b"15\r\n"
    assert everywhere(wires, "n:x") == all_are(b"15")


def _incr(cluster, name, key, count):
    """So many increments; the numbers that were answered. Who meets another's lock for too long is told so, and tries again."""
    numbers = []
    with Wire(cluster[name].outrigger.port) as wire:
        while len(numbers) < count:
            line = wire.ask(b"incr %s 1\r\n" % key.encode())
            if not line.startswith(b"SERVER_ERROR"):
                numbers.append(int(line))
            else:
                assert b"another write of this key is under way" in line, line
    return numbers


def test_counters(cluster, wires):
    assert wires["east"].set("s:n", b"0") == b"STORED\r\n"
    everywhere(wires, "s:n")
    answered = in_threads([lambda n=name: _incr(cluster, n, "s:n", 10) for name in REGIONS * 2])
    assert sorted(number for numbers in answered for number in numbers) == list(range(1, 61))
    assert everywhere(wires, "s:n") == all_are(b"60")


def _cas(wire, key, value, unique):
    return wire.ask(b"cas %s 0 0 %d %d\r\n%s\r\n" % (key.encode(), len(value), unique, value))


def test_cas(cluster, wires):
    east, west = wires["east"], wires["west"]
    assert east.set("s:cas", b"1") == b"STORED\r\n"
    cached(cluster, wires, "s:cas")
    value, _, unique = west.gets("s:cas")
    assert _cas(west, "s:cas", b"2", unique + 1) == b"EXISTS\r\n"
    assert _cas(west, "s:cas", b"2", unique) == b"STORED\r\n"
    assert everywhere(wires, "s:cas") == all_are(b"2")
    cached(cluster, wires, "s:cas")
    assert _cas(west, "s:cas", b"3", unique) == b"EXISTS\r\n"
    unique = west.gets("s:cas")[2]
    assert east.set("s:cas", b"4") == b"STORED\r\n"
    assert _cas(west, "s:cas", b"5", unique) == b"NOT_FOUND\r\n"  # the lock has taken the entry away
    assert everywhere(wires, "s:cas") == all_are(b"4")
    assert _cas(west, "s:none", b"5", 7) == b"NOT_FOUND\r\n"


def test_cas_compares_with_the_row(cluster, wires):
    assert wires["east"].set("s:row", b"1") == b"STORED\r\n"
    cached(cluster, wires, "s:row")
    unique = wires["west"].gets("s:row")[2]
    query(cluster, "UPDATE outrigger_entries SET value = 'sql' WHERE cache_key = 's:row'")
    assert _cas(wires["west"], "s:row", b"2", unique) == b"EXISTS\r\n"
    assert everywhere(wires, "s:row") == all_are(b"sql")


# ---- write: aside

def test_a_delete_is_heeded_everywhere_at_once(cluster, wires):
    query(cluster, "INSERT INTO packages VALUES ('p', '0')")
    for i in range(1, 21):
        query(cluster, "UPDATE packages SET version = %s WHERE name = 'p'", (str(i),))
        wire = wires[REGIONS[i % 3]]
        assert (wire.delete("a:p") == b"DELETED\r\n") if i % 2 else (wire.set("a:p", b"changed") == b"STORED\r\n")
        assert everywhere(wires, "a:p") == all_are(b"%d" % i)


def test_a_delete_with_a_cas(cluster, wires):
    query(cluster, "INSERT INTO packages VALUES ('c', 'x')")
    assert wires["east"].ask(b"md a:c C7\r\n") == b"NF\r\n"
    cached(cluster, wires, "a:c")
    unique = wires["east"].gets("a:c")[2]
    query(cluster, "UPDATE packages SET version = 'y' WHERE name = 'c'")
    assert wires["east"].ask(b"md a:c C%d\r\n" % (unique + 1)) == b"EX\r\n"
    assert wires["east"].ask(b"md a:c C%d\r\n" % unique) == b"HD\r\n"
    assert everywhere(wires, "a:c") == all_are(b"y")


def test_what_computes_with_the_entry_is_refused(wires):
    for line in (b"incr a:r 1\r\n", b"append a:r 0 0 1\r\nx\r\n"):
        assert wires["east"].ask(line).startswith(b"SERVER_ERROR namespace a is read-through")


# ---- locks

def test_readers_of_a_locked_key_have_the_old_value_and_no_error(cluster, wires):
    assert wires["east"].set("s:locked", b"old") == b"STORED\r\n"
    assert everywhere(wires, "s:locked") == all_are(b"old")
    row = RowLock(cluster, "SELECT value FROM outrigger_entries WHERE cache_key = %s", ("s:locked",))
    with Wire(cluster["west"].outrigger.port) as writer:
        writer.send(b"set s:locked 0 0 3\r\nnew\r\n")
        row.holds()
        assert [peek(cluster[name].outrigger, "s:locked") for name in REGIONS] == ["lock"] * 3
        growth = Growth(*(cluster[name].outrigger for name in REGIONS))
        for _ in range(3):
            assert everywhere(wires, "s:locked") == all_are(b"old")
        assert growth.of("outrigger_strong_locked_total") == 9
        row.release()
        assert writer.line() == b"STORED\r\n"
    assert everywhere(wires, "s:locked") == all_are(b"new")


def test_a_second_writer_is_told_so(cluster, wires):
    assert wires["east"].set("s:two", b"0") == b"STORED\r\n"
    row = RowLock(cluster, "SELECT value FROM outrigger_entries WHERE cache_key = %s", ("s:two",))
    with Wire(cluster["west"].outrigger.port) as writer:
        writer.send(b"set s:two 0 0 1\r\n1\r\n")
        row.holds()
        assert b"another write of this key is under way" in wires["east"].set("s:two", b"2")
        row.release()
        assert writer.line() == b"STORED\r\n"
    assert everywhere(wires, "s:two") == all_are(b"1")
    assert wires["east"].set("s:two", b"3") == b"STORED\r\n"
    assert everywhere(wires, "s:two") == all_are(b"3")


def test_a_fill_waits_for_whoever_writes_the_row(cluster, wires):
    query(cluster, "INSERT INTO packages VALUES ('w', 'old')")
    row = RowLock(cluster, "SELECT version FROM packages WHERE name = %s", ("w",))
    with row._connection.cursor() as cursor:
        cursor.execute("UPDATE packages SET version = 'new' WHERE name = 'w'")
    with Wire(cluster["east"].outrigger.port) as reader:
        reader.send(b"get a:w\r\n")
        row.holds()
        row._connection.commit()
        row.release()
        assert reader.until(b"END\r\n") == b"VALUE a:w 0 3\r\nnew\r\nEND\r\n"
    assert everywhere(wires, "a:w") == all_are(b"new")


def test_locks_of_a_writer_that_was_killed_lapse(cluster, wires):
    assert wires["east"].set("s:killed", b"old") == b"STORED\r\n"
    assert everywhere(wires, "s:killed") == all_are(b"old")
    row = RowLock(cluster, "SELECT value FROM outrigger_entries WHERE cache_key = %s", ("s:killed",))
    west = cluster["west"].outrigger
    with Wire(west.port) as writer:
        writer.send(b"set s:killed 0 0 3\r\nnew\r\n")
        row.holds()
        west.kill()
    left = {name: wire for name, wire in wires.items() if name != "west"}
    assert everywhere(left, "s:killed") == {"east": b"old", "north": b"old"}
    row.release()
    west.start("listening")  # its lease had not run out, so it goes on with it

    def is_cached():
        return all(peek(cluster[name].outrigger, "s:killed") == "hit" for name in left if wires[name].get("s:killed") is not None)
    wait.until(is_cached, "a fill over the lock that has lapsed", 40.0)
    value = in_database(cluster, "s:killed")
    assert value in (b"old", b"new")
    assert everywhere(left, "s:killed") == {"east": value, "north": value}
    west.wait("ready", 40.0)
    assert sees(west.port, "s:killed") == value
    assert sees(west.port, "s:set") is not None


def test_a_region_that_can_not_be_told_serves_nothing_from_its_cache(cluster, wires):
    """Its NATS is gone, so a write suspends it. Its sidecar and its node live on, and the node has the old value."""
    west = cluster["west"]
    assert wires["east"].set("s:cut", b"old") == b"STORED\r\n"
    cached(cluster, wires, "s:cut")
    west.nats.process.kill()
    growth = Growth(west.outrigger)
    assert wires["east"].set("s:cut", b"new") == b"STORED\r\n"
    assert peek(west.outrigger, "s:cut") == "hit"
    for _ in range(3):
        assert everywhere(wires, "s:cut") == all_are(b"new")
    assert growth.of("outrigger_strong_no_share_total") >= 3
    assert wires["west"].set("e:cut", b"1").startswith(b"SERVER_ERROR")  # no spool, no bus
    west.nats.start()
    west.outrigger.wait("ready", 60.0)
    assert everywhere(wires, "s:cut") == all_are(b"new")
    cached(cluster, wires, "s:cut")
    assert wires["west"].set("s:cut", b"newer") == b"STORED\r\n"
    assert everywhere(wires, "s:cut") == all_are(b"newer")
