"""Tells a change from noise: two runs, cell by cell.

Runs are far apart, and a shared machine has good and bad minutes. So the unit is the round, not the single run:
rounds are drawn again with replacement (a bootstrap), and what 99 of 100 drawn ratios of medians span is the
interval. A cell has changed if the interval leaves out 1 by more than `LEVEL`. Where both runs hold the yardstick, a
fixed piece of pure Python, the change of the machine itself is taken out first.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from headrace.bench.results import Cell, Results

#: What is less than that is not worth a word, however sure.
LEVEL = 0.03
_DRAWS = 2_000
_ROUNDS_LEAST = 3
_TAIL = 0.005


@dataclass(frozen=True)
class Change:
    """One cell in both runs."""

    before: Cell
    after: Cell
    ratio: float
    """Time after, divided by time before; the machine's own change taken out."""
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, `noise`, or `unknown` for too few rounds."""
        if min(len(self.before.by_round_s), len(self.after.by_round_s)) < _ROUNDS_LEAST:
            return "unknown"
        if self.low > 1 + LEVEL:
            return "slower"
        return "faster" if self.high < 1 - LEVEL else "noise"


def machine_ratio(before: Results, after: Results) -> float:
    """How many times longer the same Python took in the second run; 1 if that was not measured."""
    if not before.yardstick_us or not after.yardstick_us:
        return 1.0
    return statistics.median(after.yardstick_us) / statistics.median(before.yardstick_us)


def compare(before: Results, after: Results, seed: int = 1) -> list[Change]:
    """The cells that both have, by name."""
    draw = random.Random(seed)
    machine = machine_ratio(before, after)
    changes = []
    for cell in after.cells:
        known = before.cell(cell.peer, cell.workload, cell.workers)
        if known is None or not known.rounds or not cell.rounds:
            continue
        ratios = sorted(_drawn(draw, cell.rounds) / _drawn(draw, known.rounds) / machine for _ in range(_DRAWS))
        low, high = ratios[int(_TAIL * _DRAWS)], ratios[int((1 - _TAIL) * _DRAWS)]
        changes.append(Change(known, cell, cell.median_s / known.median_s / machine, low, high))
    return changes


def _drawn(draw: random.Random, rounds: list[list[float]]) -> float:
    """The median over as many rounds, drawn again, each with its runs drawn again."""
    return statistics.median(
        statistics.median(draw.choices(one, k=len(one))) for one in draw.choices(rounds, k=len(rounds))
    )


def as_text(before: Results, after: Results) -> str:
    """A table for people; changes first."""
    changes = compare(before, after)
    order = ["slower", "faster", "unknown", "noise"]
    lines = [
        f"the same Python took {machine_ratio(before, after):.2f} times as long in the second run; taken out below"
    ]
    if before.machine["commit"] != after.machine["commit"]:
        lines.append(f"commit {before.machine['commit']} → {after.machine['commit']}")
    for name in ("cpu", "cores", "kernel", "python", "build"):
        if before.machine.get(name) != after.machine.get(name):
            lines.append(f"{name} differs: {before.machine.get(name)} → {after.machine.get(name)}")
    width = max((len(_name(change)) for change in changes), default=0)
    for change in sorted(changes, key=lambda change: (order.index(change.verdict), -change.ratio)):
        lines.append(
            f"{change.verdict:8} {_name(change):{width}}  "
            f"{change.before.task_us:10.4g} → {change.after.task_us:10.4g} µs a task"
            f"  {change.ratio - 1:+7.1%}  (99 %: {change.low - 1:+.1%} … {change.high - 1:+.1%})"
        )
    counts = [f"{sum(change.verdict == verdict for change in changes)} {verdict}" for verdict in order]
    return "\n".join([*lines, f"{len(changes)} cells in both: {', '.join(counts)}"])


def _name(change: Change) -> str:
    return f"{change.after.peer} {change.after.workload} on {change.after.workers}"
