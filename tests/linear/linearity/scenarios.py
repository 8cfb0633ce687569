"""One scene for each guard of strong consistency, played step by step: with the guard in force the history is linearizable, without it it is not.

East is the region that things happen to, west writes, north is the third vote. Each scene is a function of a Stage; what was done is its history. Where
a scene is a matter of luck (a moment between two rounds), it is played up to _ROUNDS times, with a key of its own each time.
"""

import shutil
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from local import wait
from local.outrigger import Outrigger

from .clients import Connection, data_of, outcome_of, value_of
from .history import OK, UNKNOWN, Operation, Recorder
from .linearizability import Verdict, check
from .rig import PREFIX, Rig

EAST, WEST, NORTH = "east", "west", "north"
_DEADLINE = 30.0
_ROUNDS = 4
_TIMEOUT = 15.0  #: of a client: longer than anything that is waited for in a write


def _until(condition: Callable[[], Any], what: str, deadline: float = _DEADLINE) -> Any:
    return wait.until(condition, what, deadline)


def _is_within(condition: Callable[[], Any], seconds: float) -> bool:
    """For what need not come true."""
    try:
        wait.until(condition, "", seconds)
    except wait.Timeout:
        return False
    return True


class Stage:
    def __init__(self, rig: Rig):
        self.rig = rig
        self.wan: Any = rig.wan
        self._recorder = Recorder()
        self._noted = self._recorder.open()
        self._keys = 0
        self._values = 0
        self._connections: Dict[str, Connection] = {}

    # ---- clients

    def key(self) -> str:
        self._keys += 1
        return f"{PREFIX}scene{self._keys}-{time.monotonic_ns()}"

    def sidecar(self, region: str) -> Outrigger:
        return self.rig.cluster[region].outrigger

    def _note(self, kind: str, key: str, argument: Any, result: Any, begin: int, end: Optional[int], outcome: str, region: str) -> None:
        self._noted.append(Operation(kind, key, argument, result, begin, end, outcome, "", region, self.sidecar(region).name))

    def get(self, region: str, key: str) -> Any:
        """The value. Fails with OSError, also for an error line."""
        connection = self._connections.setdefault(region, Connection(_TIMEOUT))
        if not connection.open(self.sidecar(region)):
            raise ConnectionError(region)
        begin = time.monotonic_ns()
        try:
            line, data, _ = connection.get(b"get", key)
        except OSError:
            connection.close()
            raise
        if line != b"END" and data is None:
            raise OSError(line.decode(errors="replace"))
        value = None if data is None else value_of(data)
        self._note("read", key, None, value, begin, time.monotonic_ns(), OK, region)
        return value

    def gets(self, region: str, key: str, seconds: float) -> None:
        """One every few milliseconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.get(region, key)
            except OSError:
                pass
            time.sleep(0.005)  # the sidecars need the processor, too

    def set(self, region: str, key: str) -> bool:
        """Once, with a value of its own: whether it was acknowledged."""
        self._values += 1
        value = f"v{self._values}"
        connection = Connection(_TIMEOUT)
        if not connection.open(self.sidecar(region)):
            return False
        data, begin = data_of(value), time.monotonic_ns()
        try:
            outcome, result = outcome_of("w", connection.ask(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(data), data)))
        except OSError:
            outcome, result = UNKNOWN, None
        finally:
            connection.close()
        self._note("write", key, value, result, begin, time.monotonic_ns() if outcome != UNKNOWN else None, outcome, region)
        return outcome == OK

    def must_set(self, region: str, key: str) -> None:
        _until(lambda: self.set(region, key), f"set {key} in {region} being acknowledged")

    @contextmanager
    def setting(self, region: str, key: str) -> Iterator[None]:
        """A set that goes on meanwhile."""
        thread = threading.Thread(target=self.set, args=(region, key), daemon=True)
        thread.start()
        yield
        thread.join(_TIMEOUT + 1)

    # ---- what is waited for

    def _hits(self, region: str) -> float:
        return self.sidecar(region).metrics().total("outrigger_hits_total", namespace=PREFIX.rstrip(":"))

    def is_cached(self, region: str, key: str) -> bool:
        """Whether a get is a hit."""
        before = self._hits(region)
        self.get(region, key)
        return self._hits(region) > before

    def cache(self, region: str, key: str) -> None:
        _until(lambda: self.is_cached(region, key), f"{key} being cached in {region}")

    def cached_key(self, writer: str, reader: str) -> str:
        """A new key that one region has set and another has cached."""
        key = self.key()
        self.must_set(writer, key)
        self.cache(reader, key)
        return key

    def serves(self, region: str) -> bool:
        return self.sidecar(region).metrics().total("outrigger_strong_serves") == 1

    def verdicts(self) -> List[Verdict]:
        return check(self._recorder.operations())

    def is_broken(self) -> bool:
        return any(not v.is_ok for v in self.verdicts())

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def share(stage: Stage) -> None:
    """East is cut off; once its lease has run out, west writes."""
    key = stage.cached_key(WEST, EAST)
    stage.wan.cut_off(EAST)
    stage.must_set(WEST, key)
    stage.gets(EAST, key, 0.3)


def lock(stage: Stage) -> None:
    """West writes what east has."""
    key = stage.cached_key(WEST, EAST)
    stage.must_set(WEST, key)
    stage.gets(EAST, key, 0.3)


def lease_wait(stage: Stage) -> None:
    """East is cut off, and has its lease still when west has given it up."""
    key = stage.cached_key(WEST, EAST)
    stage.wan.cut_off(EAST)
    with stage.setting(WEST, key):
        stage.gets(EAST, key, 3.0)


def proof_age(stage: Stage) -> None:
    """West can not reach east, and suspends it; east comes back by the vote of north; west writes again."""
    key = stage.key()
    stage.must_set(WEST, key)
    stage.wan.cut(EAST, WEST)
    stage.must_set(WEST, key)
    _until(lambda: not stage.serves(EAST), "east having lost its lease")
    _until(lambda: stage.serves(EAST), "east serving again")
    stage.cache(EAST, key)
    stage.must_set(WEST, key)
    stage.gets(EAST, key, 0.3)


def comeback_wait(stage: Stage) -> None:
    """East stood still, and is suspended. A write leaves it out, and waits in the database while east comes back and loads the old row."""
    key = stage.cached_key(WEST, EAST)
    east = stage.sidecar(EAST).process
    east.pause()
    stage.must_set(WEST, key)
    connection = stage.rig.primary.connect(stage.rig.cluster.schema)
    with connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES outrigger_entries READ")
        with stage.setting(WEST, key):
            _until(lambda: any("metadata lock" in (p["State"] or "") for p in stage.rig.primary.query("SHOW PROCESSLIST")), "the write in the database")
            east.resume()
            _is_within(lambda: stage.is_cached(EAST, key), 2.0)
            cursor.execute("UNLOCK TABLES")
    stage.gets(EAST, key, 0.3)


def locking_read(stage: Stage) -> None:
    """A COMMIT takes longer than the locks last: the replica, which the primary waits for (semi-synchronously), stands still."""
    key, primary, replica = stage.key(), stage.rig.primary, stage.rig.replica
    stage.must_set(WEST, key)
    for server, setting in ((primary, "master_timeout = 60000"), (primary, "master_wait_point = AFTER_SYNC"), (replica, "slave_enabled = 1"),
                            (primary, "master_enabled = 1")):
        server.query(f"SET GLOBAL rpl_semi_sync_{setting}")
    replica.query("STOP SLAVE IO_THREAD")
    replica.query("START SLAVE IO_THREAD")
    _until(lambda: primary.query("SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")[0]["Value"] == "1", "the replica being waited for")
    replica.process.pause()
    other = threading.Thread(target=primary.query, args=("UPDATE races SET seq = seq + 1 WHERE k = 'h0'", None, stage.rig.cluster.schema), daemon=True)
    other.start()  # it waits for the replica, and all commits behind it with it, beyond their time limits
    _until(lambda: any("semi-sync" in (p["State"] or "") for p in primary.query("SHOW PROCESSLIST")), "a commit that waits for the replica")
    try:
        stage.set(WEST, key)
        _is_within(lambda: stage.is_cached(NORTH, key), 7.0)
    finally:
        replica.process.resume()
        other.join(_DEADLINE)
    _is_within(lambda: stage.get(WEST, key) is None, 0.5)
    stage.gets(NORTH, key, 0.3)
    for server in (primary, replica):
        server.query("SET GLOBAL rpl_semi_sync_master_enabled = 0")


def _east_renews(stage: Stage) -> None:
    """Waits until west's NATS has taken east's record once more."""
    nats = stage.rig.cluster[WEST].nats
    with nats.process.inside():
        s = socket.create_connection((nats.host, nats.port), _TIMEOUT)
    with s, s.makefile("rb") as lines:
        s.sendall(b'CONNECT {"verbose":false}\r\nSUB $KV.CONTROL_west.east 1\r\nPING\r\n')
        while not lines.readline().startswith(b"MSG "):
            pass


def from_sending(stage: Stage) -> None:
    """What the others answer east comes late. A renewal is under way there when west suspends east, and is the last that east hears of."""
    for _ in range(_ROUNDS):
        key = stage.cached_key(WEST, EAST)
        for other in (WEST, NORTH):
            stage.wan.delay_to(other, EAST, 800)
        _east_renews(stage)
        _east_renews(stage)
        with stage.setting(WEST, key):
            time.sleep(0.85)
            stage.wan.cut_off(EAST)
            stage.gets(EAST, key, 3.6)
        stage.wan.delay_all(0)
        stage.wan.heal_all()
        if stage.is_broken():
            return


def _north_forgets(stage: Stage) -> None:
    """Its NATS loses the votes, and is reached by east again, but not by west. It dies when east can see that, or east would take seconds to notice.
    (Had it lost its stream, too, east would have dropped all it has: the bus would have seen a gap.)"""
    nats = stage.rig.cluster[NORTH].nats
    stage.wan.cut(WEST, NORTH)
    stage.wan.heal(EAST, NORTH)
    nats.kill()
    votes = list((nats.directory / "store").rglob("KV_CONTROL_north"))
    assert votes, "where nats-server keeps its streams"
    for directory in votes:
        shutil.rmtree(directory)
    nats.start()


def blank_vote(stage: Stage) -> None:
    """West and north have suspended east; north loses its store and takes east's renewal, while west waits for its lease to run out."""
    for _ in range(_ROUNDS):
        key = stage.cached_key(WEST, EAST)
        _east_renews(stage)
        stage.wan.cut_off(EAST)
        with stage.setting(WEST, key):
            time.sleep(1.3)  # asked, suspended, and confirmed by the next round, a third of a lease later
            _north_forgets(stage)
            stage.gets(EAST, key, 4.0)
        stage.wan.heal_all()
        if stage.is_broken():
            return


def create(stage: Stage) -> None:
    """The same, but north forgets only when east's lease has run out and west's write is acknowledged."""
    key = stage.cached_key(WEST, EAST)
    stage.wan.cut_off(EAST)
    stage.must_set(WEST, key)
    _north_forgets(stage)
    _is_within(lambda: stage.serves(EAST), 8.0)
    stage.gets(EAST, key, 0.5)


class Scene(NamedTuple):
    play: Callable[[Stage], None]
    config: Dict[str, Any] = {}


_SLOW = {"strong": {"lease": "3s", "lock_window": "8s", "prepare_timeout": "200ms"}}
#: By the guard that it is about (common/guard.h).
SCENES: Dict[str, Scene] = {
    "strong_share": Scene(share),
    "strong_lock": Scene(lock),
    "strong_locking_read": Scene(locking_read),
    "strong_lease_wait": Scene(lease_wait, {"strong": {"lease": "2s", "lock_window": "6s", "prepare_timeout": "200ms"}}),
    "strong_from_sending": Scene(from_sending, _SLOW),
    "strong_blank_vote": Scene(blank_vote, _SLOW),
    "strong_create": Scene(create, _SLOW),
    "strong_comeback_wait": Scene(comeback_wait, {"database": {"timeout": "3s"}}),
    "strong_proof_age": Scene(proof_age),
}


def play(rig: Rig, guard: str, is_broken: bool) -> List[Verdict]:
    """What is not linearizable, or not decided. The sidecars are started anew; afterwards the network and the servers are as before."""
    scene = SCENES[guard]
    rig.restart_with(guard if is_broken else None, scene.config)
    stage = Stage(rig)
    try:
        for region in (EAST, WEST, NORTH):
            _until(lambda r=region: stage.serves(r), f"{region} serving strong hits")
        scene.play(stage)
        return [v for v in stage.verdicts() if not v.is_ok]
    finally:
        stage.close()
        rig.wan.heal_all()
        rig.wan.delay_all(0)
        for process in rig.cluster.processes():
            if process.is_running:
                process.resume()
