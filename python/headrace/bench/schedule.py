"""Who has a turn when, and how long it may take: a run of given length asks everybody, and then again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from headrace.bench.engines import Peer

#: The peer that all are compared with. It comes last in the first round, and runs whatever sizes the others came to.
OURS = "headrace"
#: The first round finds sizes and watches memory.
_FIRST_WEIGHT = 4.0
#: Most turns take less than their part, which the others may have.
_GENEROSITY = 2.0
#: What the first turn of ours has in any case.
_OURS_LEAST_S = 150.0


class Schedule:
    """Turns in order, each with the time at which it has to end.

    Args:
        peers: who takes turns.
        rounds: how often.
        minutes: how long all may take together; None if it does not matter.
    """

    def __init__(self, peers: list[Peer], rounds: int, minutes: float | None) -> None:
        order = sorted(peers, key=lambda peer: peer.name == OURS)
        self._turns = [
            (number, peer)
            for number in range(rounds)
            for peer in (order if number % 2 == 0 else reversed(order))
            if number < peer.rounds_max
        ]
        self._end = time.monotonic() + (60 * minutes if minutes is not None else math.inf)

    def turns(self) -> Iterator[tuple[int, Peer, float]]:
        """Each turn: the round, the peer, and the monotonic time after which nothing more is begun."""
        left = sum(map(_weight, self._turns))
        for turn in self._turns:
            now = time.monotonic()
            part = (self._end - now) * _weight(turn) / left * _GENEROSITY
            left -= _weight(turn)
            # The first turn of ours is what all others are compared with.
            is_first_of_ours = turn[1].name == OURS and turn[0] == 0
            end = max(self._end, now + _OURS_LEAST_S) if is_first_of_ours else min(self._end, now + part)
            yield (*turn, end)


def _weight(turn: tuple[int, Peer]) -> float:
    number, peer = turn
    return peer.patience * (_FIRST_WEIGHT if number == 0 else 1.0)
