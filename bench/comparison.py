"""Takes turns: the reference, ours, the reference, ours, in one run, so that both meet the same machine.

A virtual machine changes its speed within seconds. A ratio taken inside one pair of turns survives that; a ratio of two
runs does not. Only ours is timed by pytest-benchmark; the reference takes its turn in the untimed set-up of each round.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_SHARE = 0.1
"""In some round each of two workers must run this part of the tasks, or the figure says nothing about two workers."""


@dataclass(frozen=True)
class Turns:
    """Seconds of each turn, in order; a pair of turns stands at the same position."""

    ours_s: list[float]
    reference_s: list[float]

    def ratios(self) -> list[float]:
        """How many times faster ours was, pair by pair."""
        return [theirs / ours for ours, theirs in zip(self.ours_s, self.reference_s, strict=True)]


def take_turns(
    benchmark: Any,
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    rounds: int,
    check: Callable[[Any], None],
    check_reference: Callable[[Any], None] | None = None,
    warm_up_rounds: int = 1,
) -> Turns:
    """Run both `rounds` times in turn; each answer is handed to its check outside the clock.

    The collector stays on; each turn starts from a collected heap, so that nobody pays for the other's garbage.
    """
    reference_s: list[float] = []
    answers: list[Any] = []

    def reference_turn() -> None:
        gc.collect()
        start = time.perf_counter()
        answer = reference()
        reference_s.append(time.perf_counter() - start)
        (check_reference or check)(answer)
        del answer
        gc.collect()

    def check_ours() -> None:
        check(answers.pop())

    benchmark.pedantic(
        lambda: answers.append(ours()),
        setup=reference_turn,
        teardown=check_ours,
        rounds=rounds,
        warmup_rounds=warm_up_rounds,
    )
    return Turns(list(benchmark.stats.stats.data), reference_s[warm_up_rounds:])


def shares(run: Any) -> list[float]:
    """Which part of the run's tasks each worker ran."""
    finished = [worker.finished for worker in run.statistics().workers]
    return [count / max(1, sum(finished)) for count in finished]


def check_shares(least_shares: list[float]) -> str:
    """Check that both workers ran their part in some round: somebody else may have a core for the 5 ms of one."""
    most = max(least_shares)
    assert most >= LEAST_SHARE, f"one worker ran {most:.0%} of the tasks in the round that it ran most of them in"
    return f"smaller worker's share {statistics.median(least_shares):.0%} (least {min(least_shares):.0%})"
