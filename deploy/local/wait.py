"""Waiting for a condition."""

import time
from typing import Callable, TypeVar

T = TypeVar("T")

#: Enough for any server here to start, on a slow machine and with sanitizers.
DEADLINE = 30.0


class Timeout(Exception):
    """The condition did not come true in time."""


def until(check: Callable[[], T], what: str, deadline: float = DEADLINE, pause: float = 0.002,
          longest_pause: float = 0.05, idle: Callable[[float], None] = time.sleep) -> T:
    """Calls check() until what it returns is true, and returns that.

    An exception of check() counts as "not yet", and is told when the time is up. `idle` is called with the seconds to
    pass between two tries, which double from `pause` to `longest_pause`; it may raise to give up early.
    Fails with Timeout, which names `what`.
    """
    end = time.monotonic() + deadline
    while True:
        reason = ""
        try:
            result = check()
            if result:
                return result
        except Exception as e:
            reason = f": {type(e).__name__}: {e}"
        left = end - time.monotonic()
        if left <= 0:
            raise Timeout(f"{what}: not within {deadline:g} s{reason}")
        idle(min(pause, left))
        pause = min(pause * 2, longest_pause)
