"""Parsl with its HighThroughputExecutor."""

from __future__ import annotations

import tempfile
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class ParslEngine(Engine):
    """Python apps with futures as arguments."""

    packages = ("parsl",)

    def start(self) -> None:
        """Start the interchange and one block of workers on this host."""
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        self.folder = tempfile.TemporaryDirectory(prefix="headrace-bench-parsl-")
        self.parsl = parsl
        executor = HighThroughputExecutor(
            label="htex",
            address="127.0.0.1",
            max_workers_per_node=self.workers,
            cores_per_worker=1e-6,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            encrypted=False,
        )
        parsl.load(
            Config(
                executors=[executor],
                run_dir=self.folder.name,
                usage_tracking=0,
                initialize_logging=False,
                strategy="none",
            )
        )
        self.apps: dict[Any, Any] = {}
        self._app(abs)(1).result()

    def run(self, plan: Plan) -> list[Any]:
        """One app call a task."""
        app = self._app(plan.function)
        futures: list[Any] = []
        for _number, constants, needed in plan.calls():
            futures.append(app(*constants, *[futures[before] for before in needed]))
        self.submitted()
        return [futures[number].result() for number in plan.kept]

    def _app(self, function: Any) -> Any:
        if function not in self.apps:
            self.apps[function] = self.parsl.python_app(function, cache=False)
        return self.apps[function]

    def stop(self) -> None:
        """End the executor."""
        self.parsl.dfk().cleanup()
        self.folder.cleanup()
