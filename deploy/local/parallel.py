"""Doing several slow things at once."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Callable, Iterable


def in_parallel(calls: Iterable[Callable[[], object]], give_up: Callable[[], object] = lambda: None) -> None:
    """Makes all the calls, each on a thread of its own, and returns when all have returned.

    When one of them fails, or the caller's thread is interrupted, give_up() is called, which should make the others fail
    soon; they are waited for, and the first failure is raised.
    """
    calls = list(calls)
    if not calls:
        return
    with ThreadPoolExecutor(max_workers=len(calls)) as threads:
        futures = [threads.submit(call) for call in calls]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            give_up()
            raise
