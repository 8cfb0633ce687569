"""Random streams to memcached and to a sidecar: whether they differ, and the fewest commands that make them differ."""

import random
from typing import List, NamedTuple, Optional, Sequence

import differential
from differential import Answer, Pair
import streams
import fuzz_streams

#: Seconds to wait for an answer in each try; a real difference is there in all of them. Less once one has been found.
TRIES = (differential.WAIT, 1.0, 1.0)
TRIES_SHRINKING = (0.3, 0.6)


class Failure(NamedTuple):
    pieces: List[bytes]
    memcached: Answer
    sidecar: Answer

    def __str__(self) -> str:
        commands = "".join(f"  {piece!r:.600}\n" for piece in self.pieces)
        return f"sent:\n{commands}memcached: {self.memcached!r:.4000}\nsidecar:   {self.sidecar!r:.4000}\n"


def joined(pieces: List[bytes]) -> List[bytes]:
    """As few pieces as the answers that are needed in between allow."""
    fewer: List[bytes] = []
    for piece in pieces:
        if fewer and not differential.needs_answers(piece):
            fewer[-1] += piece
        else:
            fewer.append(piece)
    return fewer


def try_once(pair: Pair, protocol: str, pieces: List[bytes], chance: random.Random, seconds: float) -> Optional[Failure]:
    dialect = streams.Binary if protocol == "binary" else streams.Text
    pair.flush()
    expected = differential.ask_memcached(pair.reference, pair.to_reference, pieces, dialect=dialect)
    # memcached may forget the answers that it has not sent yet when it hangs up; a sidecar never.
    slowly = pair.is_stand_in or chance.random() < 0.3
    got = differential.ask_outrigger(pair.sidecar, pair.to_sidecar if slowly else None, pieces if slowly else joined(pieces), expected,
                                     differential.odd if chance.random() < 0.5 and not pair.is_stand_in else differential.whole, dialect, seconds)
    return None if got == expected.answer else Failure(pieces, expected.answer, got)


def find_failure(pair: Pair, protocol: str, pieces: List[bytes], seed: object = 0, tries: Sequence[float] = TRIES) -> Optional[Failure]:
    chance, failure = random.Random(str(seed)), None
    for seconds in tries:
        failure = try_once(pair, protocol, pieces, chance, seconds)
        if failure is None:
            return None
    return failure


def shrink(pair: Pair, protocol: str, failure: Failure, seed: object = 0) -> Failure:
    """Drops commands, the last ones first, for as long as the rest still fails."""
    at, kept = len(failure.pieces), protocol == "binary"  # of which the first makes the connection a binary one
    while at > kept:
        at -= 1
        fewer = failure.pieces[:at] + failure.pieces[at + 1:]
        smaller = find_failure(pair, protocol, fewer, seed, TRIES_SHRINKING) if fewer else None
        if smaller is not None:
            failure, at = smaller, min(at + 1, len(smaller.pieces))
    return failure


def run(pair: Pair, protocol: str, seed: int) -> Optional[Failure]:
    """The stream of that seed; what is left of it if the two differ."""
    failure = find_failure(pair, protocol, fuzz_streams.stream(protocol, seed), seed)
    return failure and shrink(pair, protocol, failure, seed)
