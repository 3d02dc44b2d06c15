"""joblib on loky."""

from __future__ import annotations

from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class JoblibEngine(Engine):
    """One reused `Parallel`. It knows no graphs, so a row of ready tasks is a call, and a barrier."""

    packages = ("joblib",)

    def start(self) -> None:
        """Start the loky workers."""
        import joblib

        self.delayed = joblib.delayed
        self.parallel = joblib.Parallel(n_jobs=self.workers)
        self.parallel.__enter__()
        self.parallel(self.delayed(abs)(number) for number in range(100))

    def run(self, plan: Plan) -> list[Any]:
        """Run row by row."""
        values: dict[int, Any] = {}
        call, predecessors = self.delayed(plan.function), plan.predecessors
        for row in plan.levels:
            results = self.parallel(
                call(*plan.constants(number), *[values[before] for before in predecessors[number]]) for number in row
            )
            values.update(zip(row, results, strict=True))
        return [values[number] for number in plan.kept]

    def stop(self) -> None:
        """End the workers."""
        from joblib.externals.loky import get_reusable_executor

        self.parallel.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)
