"""Being ended from outside, as an exception in the main thread, so that every `with` and `finally` does its work."""

import signal
import threading
from contextlib import contextmanager
from typing import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal asked us to end."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def _raise(number: int, frame: object) -> None:
    raise Ended(number)


@contextmanager
def _handled_by(handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def as_exceptions():
    """Within it, SIGINT, SIGTERM and SIGHUP raise Ended."""
    return _handled_by(_raise)


def ignored():
    """Within it they do nothing: for tearing down, which is short. Children do not get the terminal's SIGINT anyway."""
    return _handled_by(signal.SIG_IGN)
