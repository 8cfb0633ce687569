"""Fixtures of the end-to-end tests: which sidecar is tested, and that it never leaves anything wrong behind.

The sidecar is $OUTRIGGER_BINARY, or else the one that tests/run builds with sanitizers.
"""

import itertools
import os
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Union

import pytest

import differential
import support
from local import paths
from local.memcached import Memcached
from local.outrigger import Outrigger

_BINARY = support.ROOT / "build-asan/proxy/outrigger"


def pytest_configure(config):
    os.environ.setdefault("OUTRIGGER_BINARY", str(_BINARY))
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1")
    os.environ.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
    os.environ.setdefault("LSAN_OPTIONS", f"suppressions={support.ROOT}/tests/support/lsan.supp:print_suppressions=0")


@pytest.fixture(scope="session")
def binary() -> Path:
    path = paths.outrigger()
    if not path.exists():
        pytest.fail(f"{path} is not there: tests/run e2e builds it")
    return path


@pytest.fixture(scope="module", autouse=True)
def watch(binary) -> Iterator[support.Watch]:
    """Set up before and torn down after every other fixture of the module, so that all sidecars have ended by then."""
    watch = support.Watch()
    with pytest.MonkeyPatch.context() as patch:
        watch.install(patch)
        yield watch
    watch.check_ended()


@pytest.fixture(autouse=True)
def nothing_wrong(watch) -> Iterator[None]:
    yield
    watch.check()


@pytest.fixture(scope="module")
def directory(request, tmp_path_factory) -> Path:
    """Files of this module's servers. The path is short enough for unix sockets in it."""
    return tmp_path_factory.mktemp(request.module.__name__.replace("test_", "")[:20])


@pytest.fixture
def wires(cluster) -> Iterator[Dict[str, support.Wire]]:
    """A connection to each region's first sidecar, by the region's name."""
    wires = {name: support.Wire(region.outrigger.port) for name, region in cluster.regions.items()}
    yield wires
    for wire in wires.values():
        wire.close()


@pytest.fixture
def east(cluster):
    """A region of the module's cluster."""
    return cluster["east"]


@pytest.fixture
def west(cluster):
    return cluster["west"]


class StandIn(NamedTuple):
    """A memcached in the place of a sidecar."""

    port: int

    @property
    def socket(self) -> int:
        return self.port


class Plain(NamedTuple):
    """A sidecar as a plain endpoint for one memcached, and another such memcached to compare it with. With OUTRIGGER_STAND_IN=memcached,
    which is for writing tests only, there is no sidecar and the first memcached stands in for it: what a test sees then is its own."""

    outrigger: Union[Outrigger, StandIn]
    node: Memcached
    reference: Memcached


@pytest.fixture(scope="module")
def plain(watch, directory) -> Iterator[Plain]:
    node, reference = Memcached(directory, name="node"), Memcached(directory, name="reference")
    outrigger = plain_outrigger(directory, node.address)
    try:
        for server in (node, reference):
            server.start()
        is_there = os.environ.get("OUTRIGGER_STAND_IN") != "memcached"
        yield Plain(outrigger.start("listening") if is_there else StandIn(node.port), node, reference)
    finally:
        for server in (outrigger, node, reference):
            server.close()


@pytest.fixture(scope="module")
def pair(plain, directory) -> Iterator[differential.Pair]:
    """The same, for differential.py."""
    for path in differential.reference(directory):
        pair = differential.Pair(path, plain.outrigger.port, plain.outrigger.socket, plain.node.port)
        yield pair
        pair.close()


def plain_outrigger(directory: Path, pool: str, **options) -> Outrigger:
    """A sidecar without a configuration file, which has no admin port."""
    outrigger = Outrigger(directory, {}, **options)
    outrigger.process.argv[1:] = ["--pool", pool, "--listen", f"{outrigger.address},unix:{outrigger.socket}"]
    return outrigger


_numbers = itertools.count(1)


@pytest.fixture
def start(watch, directory) -> Iterator[Callable[..., Outrigger]]:
    """A function: a configuration to a sidecar of this test only; `until` is Outrigger.start()'s, the rest Outrigger()'s."""
    started = []

    def call(config: dict, until: Optional[str] = "ready", **options) -> Outrigger:
        options.setdefault("name", f"outrigger-{next(_numbers)}")
        sidecar = Outrigger(directory, {"threads": 2, **config}, **options)
        started.append(sidecar)
        sidecar.start(until)
        if until == "listening":
            sidecar.process.wait_until(lambda: sidecar.http("GET", "/healthz")[0] == 200, "admin answering")
        return sidecar
    yield call
    for sidecar in started:
        sidecar.close()
