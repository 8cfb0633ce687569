#!/usr/bin/python3
"""Builds and runs the tests; tests/run is how it is called. Prints one closing line, "N passed, N failed"."""
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ASAN = os.path.join(ROOT, "build-asan")
TSAN = os.path.join(ROOT, "build-tsan")
HOOKS = os.path.join(ROOT, "build-hooks")
FUZZ = os.path.join(ROOT, "build-fuzz")
FUZZ_SECONDS = 60
RACE_SECONDS = 600
# What runs under ThreadSanitizer as well: everything that more than one thread touches.
THREADED = ["common-log", "common-mailbox", "common-metrics", "common-credentials", "admin-http", "database-loader", "database-writer", "bus-bus_nats", "bus-bus_spool", "bus-spooler",
            "net-tls"]
THREADED_TESTS = ("patterns or stats or spool or tls or auth or regions or write_through or replica_reads or admin or hot_key or refresh or batched or leases "
                  "or outages")

# A test that takes so long hangs: it fails, and the others go on.
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-q", "-rf", "--tb=short", "-p", "no:cacheprovider", "--timeout", "600", "--timeout-method", "signal"]

ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "LSAN_OPTIONS": "suppressions=" + os.path.join(ROOT, "tests/support/lsan.supp") + ":print_suppressions=0",
    "TSAN_OPTIONS": "halt_on_error=1:suppressions=" + os.path.join(ROOT, "tests/support/tsan.supp"),
    "CK_DEFAULT_TIMEOUT": "120",  # the machine may be busy
}


class Tally:
    """What passed and failed so far, and the names of what failed."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.names = []

    def add(self, passed, failed, name):
        self.passed += passed
        self.failed += failed
        if failed:
            self.names.append(name)


def say(text):
    print(text, flush=True)


def build(directory, options, targets, environment=None):
    """Configures a build directory once, and builds. A build that fails ends the run."""
    env = dict(os.environ, **(environment or {}))
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        subprocess.run(["meson", "setup", directory, *options], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    else:  # it may have been made with other options
        subprocess.run(["meson", "configure", directory, *options], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["ninja", "-C", directory, *targets], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        say(done.stdout[-8000:])
        say("build failed: " + os.path.basename(directory))
        say("0 passed, 1 failed")
        sys.exit(1)


def run_checked(name, command, tally, timeout=300, cwd=ROOT, environment=None):
    """Runs a program that is either good or not, or a Check program, whose own counts are taken."""
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=cwd, env=dict(os.environ, **ENVIRONMENT, **(environment or {})), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as timed_out:
        output, status = (timed_out.stdout or b"").decode(errors="replace") + "\ntimed out", 1
    passed = failed = 0
    for checks, failures, errors in re.findall(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", output):
        bad = int(failures) + int(errors)
        passed += int(checks) - bad
        failed += bad
    if status != 0 and failed == 0:
        failed = 1
    if status == 0 and passed == 0:
        passed = 1
    tally.add(passed, failed, name)
    say(f"{'ok  ' if failed == 0 else 'FAIL'} {name} ({passed} passed{f', {failed} failed' if failed else ''}, {time.monotonic() - started:.1f} s)")
    if failed:
        say(output[-6000:])


def unit_programs(directory):
    found = []
    for folder, prefix in (("tests/unit", "unit-"),):
        path = os.path.join(directory, folder)
        found += sorted(os.path.join(path, name) for name in os.listdir(path) if name.startswith(prefix) and not name.endswith(".p"))
    return found


@contextlib.contextmanager
def mariadb():
    """A MariaDB of our own for the test of the store; yields what the test wants to know of it, as environment."""
    sys.path.insert(0, os.path.join(ROOT, "deploy"))
    from local.mariadb import MariaDB  # after setup has installed what it needs

    with tempfile.TemporaryDirectory(prefix="outrigger-test-") as directory:
        os.chmod(directory, 0o755)
        server = MariaDB(Path(directory) / "mariadb", arguments=["--max-allowed-packet=64M", "--autocommit=0"])
        try:
            server.start()
            server.create_schema("outrigger", "outrigger", "secret")
            server.query("GRANT ALL ON *.* TO outrigger@127.0.0.1 WITH GRANT OPTION")
            yield {"OUTRIGGER_TEST_MYSQL": f"{server.address}:outrigger:secret:outrigger"}
        finally:
            server.close()


def run_unit(tally, name=None):
    build(ASAN, ["-Dtests=true", "--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"], [])
    for program in unit_programs(ASAN):
        short = os.path.basename(program)[len("unit-"):]
        if name is not None and name not in short:
            continue
        if short.startswith("database-store_"):
            with mariadb() as environment:
                run_checked("unit " + short, [program], tally, cwd=ASAN, environment=environment)
        else:
            run_checked("unit " + short, [program], tally, cwd=ASAN)
    threaded = [t for t in THREADED if name is None or name in t]
    if threaded:
        build(TSAN, ["-Dtests=true", "--buildtype=debugoptimized", "-Db_sanitize=thread", "-Db_lundef=false"],
              ["tests/unit/unit-" + t for t in threaded])
        for t in threaded:
            run_checked("tsan " + t, [os.path.join(TSAN, "tests/unit/unit-" + t)], tally, cwd=TSAN)
    if name is None:
        corpus = os.path.join(ROOT, "tests/fuzz/corpus")
        for fuzzer in sorted(os.listdir(corpus)):
            run_checked("replay " + fuzzer, [os.path.join(ASAN, "tests/fuzz/replay-" + fuzzer), os.path.join(corpus, fuzzer)], tally)
        run_model(tally, ["--small"])
        run_checked("lint", [os.path.join(ROOT, "tests/lint/run"), ASAN], tally)


def build_hooks():
    """The sidecar whose guards can be taken out (common/guard.h)."""
    build(HOOKS, ["-Dtest_hooks=true", "--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"], ["proxy/outrigger", "ctl/outriggerctl"])


def run_model(tally, arguments):
    """The model of the strong protocol (docs/model); its own lines say what was found."""
    done = subprocess.run([os.path.join(ROOT, "tests/model/run"), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    say(done.stdout.rstrip())
    counts = re.search(r"Checks: (\d+), Failures: (\d+)", done.stdout)
    checks, failures = (int(n) for n in counts.groups()) if counts else (1, 1)
    tally.add(checks - failures, failures, "model")


def run_races(tally, seconds):
    build_hooks()
    command = [os.path.join(ROOT, "tests/races/run"), "--seconds", str(seconds)]
    status = subprocess.run(command, cwd=ROOT, env=dict(os.environ, **ENVIRONMENT), check=False).returncode
    tally.add(int(status == 0), int(status != 0), "races")


def run_threads(tally, name):
    """The whole sidecar under ThreadSanitizer, with real servers; a data race ends it, which fails the test."""
    build(TSAN, ["-Dtests=true", "--buildtype=debugoptimized", "-Db_sanitize=thread", "-Db_lundef=false"], ["proxy/outrigger", "ctl/outriggerctl"])
    command = [*PYTEST, "tests/e2e", "-k", name]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", OUTRIGGER_BINARY=os.path.join(TSAN, "proxy/outrigger"), **ENVIRONMENT)
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    tally.add(int(status == 0), int(status != 0), "threads")


def run_e2e(tally, name=None):
    build(ASAN, ["-Dtests=true", "--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"], [])
    if name is None or "race" in name or "linear" in name:
        build_hooks()
    report = os.path.join(ASAN, "e2e.xml")
    command = [*PYTEST, "--junitxml", report, "tests/e2e", "tests/bench", "tests/linear", "tests/availability"]
    if name is not None:
        command += ["-k", name]
    if os.path.exists(report):
        os.remove(report)
    status = subprocess.run(command, cwd=ROOT, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **ENVIRONMENT), check=False).returncode
    if not os.path.exists(report):
        tally.add(0, 1, "e2e: pytest did not come to its end")
        return
    if status == 5 and name is not None:
        return  # pytest has nothing of that name
    suites = ElementTree.parse(report).getroot()
    tests = failures = skipped = 0
    for suite in suites.iter("testsuite"):
        tests += int(suite.get("tests"))
        failures += int(suite.get("failures")) + int(suite.get("errors"))
        skipped += int(suite.get("skipped"))
    if status not in (0, 5) and failures == 0:
        failures = 1
    tally.add(max(tests - failures - skipped, 0), failures, "e2e")


def run_fuzz(tally):
    build(FUZZ, ["-Dtests=true", "-Dfuzz=true", "--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false",
                 "-Dc_args=-fsanitize=fuzzer-no-link"], [], {"CC": "clang"})
    corpus = os.path.join(ROOT, "tests/fuzz/corpus")
    for fuzzer in sorted(os.listdir(corpus)):
        grown = os.path.join(FUZZ, "corpus-" + fuzzer)
        os.makedirs(grown, exist_ok=True)
        run_checked("fuzz " + fuzzer, [os.path.join(FUZZ, "tests/fuzz/fuzz-" + fuzzer), f"-max_total_time={FUZZ_SECONDS}", "-print_final_stats=1",
                                       f"-artifact_prefix={grown}/", grown, os.path.join(corpus, fuzzer)], tally, FUZZ_SECONDS + 120)


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    tally = Tally()
    if what == "fuzz":
        run_fuzz(tally)
    elif what == "races":
        run_races(tally, sys.argv[2] if len(sys.argv) > 2 else RACE_SECONDS)
    elif what == "threads":
        run_threads(tally, sys.argv[2] if len(sys.argv) > 2 else THREADED_TESTS)
    elif what == "model":
        run_model(tally, sys.argv[2:])
    elif what in ("all", "unit", "e2e"):
        if what != "e2e":
            run_unit(tally)
        if what != "unit":
            run_e2e(tally)
    else:
        run_unit(tally, what)
        run_e2e(tally, what)
        if tally.passed + tally.failed == 0:
            say(f'no test is called "{what}"')
            tally.add(0, 1, what)
    if tally.names:
        say("failed: " + ", ".join(tally.names))
    say(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
