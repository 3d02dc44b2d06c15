"""One figure: a question, what was measured, and the bar it is held against."""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from comparison import Turns


@dataclass(frozen=True)
class Figure:
    """An answer to one question of `bench/`.

    `score` is what `bar` and `aim` judge: a ratio that must be at least the bar, or a quantity that must be at most it.
    """

    question: str
    measured: str
    reference: str
    score: float
    unit: str
    bar: float
    aim: float | None
    at_least: bool
    samples: list[float]
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the score reaches the bar."""
        return self.score >= self.bar if self.at_least else self.score <= self.bar

    @property
    def aim_met(self) -> bool:
        """Whether the score reaches the aim as well; a figure without an aim has met it with the bar."""
        aim = self.bar if self.aim is None else self.aim
        return self.score >= aim if self.at_least else self.score <= aim

    @property
    def verdict(self) -> str:
        """The judgement in one word."""
        return "aim" if self.aim_met else "met" if self.met else "BELOW"

    def as_json(self) -> dict[str, Any]:
        """The fields and the judgement."""
        return asdict(self) | {"met": self.met, "aim_met": self.aim_met}


def times_faster(
    question: str,
    turns: Turns,
    *,
    tasks: int,
    bar: float,
    aim: float | None = None,
    unit: str = "µs/task",
    against: str = "pool",
    detail: str = "",
) -> Figure:
    """How many times faster ours is: the median over the pairs of turns."""
    ratios = turns.ratios()
    return Figure(
        question=question,
        measured=f"{per_task_us(turns.ours_s, tasks):.3g} {unit}",
        reference=f"{against} {per_task_us(turns.reference_s, tasks):.3g} {unit}",
        score=statistics.median(ratios),
        unit="×",
        bar=bar,
        aim=aim,
        at_least=True,
        samples=ratios,
        detail=detail,
    )


def at_most(
    question: str,
    samples: list[float],
    unit: str,
    *,
    bar: float,
    aim: float | None = None,
    measured: str = "",
    reference: str = "",
    detail: str = "",
) -> Figure:
    """A quantity that must not exceed its bar: the median of the samples."""
    score = statistics.median(samples)
    return Figure(
        question=question,
        measured=measured or f"{score:.3g} {unit}".strip(),
        reference=reference,
        score=score,
        unit=unit,
        bar=bar,
        aim=aim,
        at_least=False,
        samples=samples,
        detail=detail,
    )


def per_task_us(seconds: list[float], tasks: int) -> float:
    """Median microseconds per task."""
    return statistics.median(seconds) / tasks * 1e6
