"""Does the store cost anything where no value is large?

Graphs of tasks that do next to nothing, in 20 pairs of turns: with the store, and with workers that leave it out
(`HEADRACE_INLINE_BYTES_MAX=none`). What is left of it there are the looks at each value's first byte, in the broker and
by its readers. So where `HEADRACE_BEFORE_PYTHON` names an interpreter with another build of headrace, one from before
the store, say, the whole of that is compared as well. Each turn has a client process and workers of its own: two starts
of the same differ by more than their turns do.

The score is the lower end of the interval in which the median of the ratios lies with 95 % confidence: above 1, a cost
is shown.
"""

import os
import sys

import pytest

from figures import Figure, per_task_us
from no_op_graphs import CHAIN, INDEPENDENT, SHAPES
from other_interpreter import OtherInterpreter, can_import

PAIRS = 20
#: Of so many ratios in order, these two have the median between them with 95.9 % confidence, however it all is
#: distributed (the sign test). A neighbour who takes the machine for a moment spoils a mean, but not this.
LOW, HIGH = 6, 15
QUESTIONS = {
    "independent": (f"Graph.map(inc, range({INDEPENDENT:,}))", INDEPENDENT),
    "chain": (f"chain of {CHAIN:,} inc", CHAIN),
}
NO_STORE = "HEADRACE_INLINE_BYTES_MAX=none"
BEFORE = "HEADRACE_BEFORE_PYTHON"


def test_store_on_against_off(record):
    for figure in costs("the store on against off", "off", sys.executable, NO_STORE):
        record(figure)


def test_this_build_against_another(record):
    python = os.environ.get(BEFORE)
    if python is None:
        pytest.skip(f"{BEFORE} names no interpreter with another build of headrace")
    assert can_import(python, "headrace"), f"{BEFORE}: {python} finds no headrace"
    for figure in costs("this build against another", "the other", python):
        record(figure)


def costs(question, against, *reference):
    """For each shape, how many times longer this build takes with its store: the interval's lower end is judged."""
    seconds = {(shape, arm): [] for shape in SHAPES for arm in ("ours", "reference")}
    arms = {"ours": (sys.executable,), "reference": reference}
    for number in range(PAIRS):
        for arm in sorted(arms, reverse=number % 2):
            python, *words = arms[arm]
            with OtherInterpreter(python, "no_op_graphs.py", *words) as client:
                for shape in SHAPES:
                    seconds[shape, arm].append(client.seconds(shape))
    for shape, (graph, tasks) in QUESTIONS.items():
        ours_s, reference_s = seconds[shape, "ours"], seconds[shape, "reference"]
        ratios = sorted(ours / theirs for ours, theirs in zip(ours_s, reference_s, strict=True))
        low, high = ratios[LOW - 1], ratios[HIGH - 1]
        yield Figure(
            question=f"{question}, {graph}: least ratio at 95 %",
            measured=f"{per_task_us(ours_s, tasks):.3g} µs/task",
            reference=f"{against} {per_task_us(reference_s, tasks):.3g} µs/task",
            score=low,
            unit="×",
            bar=1.0,
            aim=None,
            at_least=False,
            samples=ratios,
            detail=f"{PAIRS} pairs: {low:.3f} to {high:.3f}{'' if low <= 1 <= high else ', which is not around 1'}",
        )
