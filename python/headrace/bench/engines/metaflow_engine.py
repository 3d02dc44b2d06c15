"""Metaflow."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan

_HEAD = """
import pickle
from metaflow import FlowSpec, step
from headrace.bench.plans import Plan, parse

PLAN = Plan(parse({workload!r}))
LEVELS = PLAN.levels


class Rows(FlowSpec):
    @step
    def start(self):
        self.values = dict()
        self.next(self.open0)
"""

_ROW = """
    @step
    def open{row}(self):
        self.numbers = LEVELS[{row}]
        self.next(self.each{row}, foreach="numbers")

    @step
    def each{row}(self):
        number = self.input
        inputs = [self.values[before] for before in PLAN.predecessors[number]]
        self.pair = number, PLAN.function(*PLAN.constants(number), *inputs)
        self.next(self.close{row})

    @step
    def close{row}(self, inputs):
        self.values = inputs[0].values | dict(each.pair for each in inputs)
        self.next(self.{after})
"""

_TAIL = """
    @step
    def end(self):
        with open({path!r}, "wb") as file:
            pickle.dump([self.values[number] for number in PLAN.kept], file)


if __name__ == "__main__":
    Rows()
"""


class MetaflowEngine(Engine):
    """A flow is a program; each run is one, with a foreach over the tasks of each row."""

    packages = ("metaflow",)

    def start(self) -> None:
        """Nothing lives between runs."""
        self.scratch = Path(os.environ["HEADRACE_BENCH_SCRATCH"])

    def run(self, plan: Plan) -> list[Any]:
        """Write the flow and run it."""
        answer, flow = self.scratch / "answer", self.scratch / "flow.py"
        rows = len(plan.levels)
        text = _HEAD.format(workload=str(plan.workload))
        for row in range(rows):
            text += _ROW.format(row=row, after="end" if row == rows - 1 else f"open{row + 1}")
        flow.write_text(text + _TAIL.format(path=str(answer)))
        environment = os.environ | {
            "METAFLOW_HOME": str(self.scratch),
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.scratch),
            "METAFLOW_USER": "bench",
            "USERNAME": "bench",
        }
        command = [sys.executable, str(flow), "--quiet", "--no-pylint", "run"]
        limits = ["--max-workers", str(self.workers), "--max-num-splits", str(len(plan) + 1)]
        subprocess.run([*command, *limits], check=True, env=environment, cwd=self.scratch)
        return list(pickle.loads(answer.read_bytes()))

    def stop(self) -> None:
        """Nothing to end."""
