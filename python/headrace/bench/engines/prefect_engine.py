"""Prefect."""

from __future__ import annotations

import os
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class PrefectEngine(Engine):
    """A flow that submits all tasks, with futures as arguments, to its thread runner."""

    packages = ("prefect",)

    def start(self) -> None:
        """Choose a private home; the server is started by the first flow."""
        os.environ |= {
            "PREFECT_HOME": os.environ["HEADRACE_BENCH_SCRATCH"],
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "DO_NOT_TRACK": "1",
        }
        from prefect import flow, task

        self.tasks: dict[Any, Any] = {}
        self.task = task

        @flow(task_runner=self._runner(), log_prints=False, validate_parameters=False)  # type: ignore[untyped-decorator]
        def whole(engine: Any, plan: Any) -> Any:
            return engine.submit_all(plan)

        self.flow = whole

    def _runner(self) -> Any:
        if self.options.get("runner") == "dask":
            from prefect_dask import DaskTaskRunner

            kwargs = {"n_workers": self.workers, "threads_per_worker": 1, "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=kwargs)
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=self.workers)

    def run(self, plan: Plan) -> list[Any]:
        """Run the flow."""
        return list(self.flow(self, plan))

    def submit_all(self, plan: Plan) -> list[Any]:
        """In the flow: submit, and read."""
        if plan.function not in self.tasks:
            self.tasks[plan.function] = self.task(plan.function, persist_result=False)
        submit = self.tasks[plan.function].submit
        futures: list[Any] = []
        for _number, constants, needed in plan.calls():
            futures.append(submit(*constants, *[futures[before] for before in needed]))
        self.submitted()
        return [futures[number].result() for number in plan.kept]

    def stop(self) -> None:
        """Its server ends with the process."""
