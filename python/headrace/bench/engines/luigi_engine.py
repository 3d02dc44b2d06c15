"""Luigi."""

from __future__ import annotations

import itertools
import os
import pickle
from pathlib import Path
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class LuigiEngine(Engine):
    """One luigi task a task; its target is the file with its value."""

    packages = ("luigi",)

    def start(self) -> None:
        """Nothing lives between runs."""
        import luigi

        self.luigi = luigi
        self.runs = itertools.count()
        _Kept.scratch = Path(os.environ["HEADRACE_BENCH_SCRATCH"])
        _Kept.step = _step_class(luigi)

    def run(self, plan: Plan) -> list[Any]:
        """Build the kept tasks."""
        run = next(self.runs)
        _Kept.plan = plan
        steps = [_Kept.step(run_number=run, number=number) for number in plan.kept]
        done = self.luigi.build(steps, workers=self.workers, local_scheduler=True, log_level="ERROR")
        if not done:
            raise RuntimeError("luigi.build failed")
        return [pickle.loads(Path(step.output().path).read_bytes()) for step in steps]

    def stop(self) -> None:
        """Nothing to end."""


class _Kept:
    """What its forked workers find: the plan of the run."""

    plan: Plan
    scratch: Path
    step: Any


def _step_class(luigi: Any) -> Any:
    class Step(luigi.Task):  # type: ignore[misc]
        """One task of the plan."""

        run_number = luigi.IntParameter()
        number = luigi.IntParameter()

        def requires(self) -> list[Any]:
            return [Step(run_number=self.run_number, number=before) for before in _Kept.plan.predecessors[self.number]]

        def output(self) -> Any:
            return luigi.LocalTarget(str(_Kept.scratch / f"{self.run_number}-{self.number}"))

        def run(self) -> None:
            inputs = [pickle.loads(Path(target.path).read_bytes()) for target in self.input()]
            value = _Kept.plan.function(*_Kept.plan.constants(self.number), *inputs)
            Path(self.output().path).write_bytes(pickle.dumps(value, protocol=5))

    return Step
