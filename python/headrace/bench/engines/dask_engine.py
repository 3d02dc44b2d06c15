"""Dask: the synchronous and the threaded scheduler in one process, and distributed."""

from __future__ import annotations

from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class DaskEngine(Engine):
    """Graphs of `dask._task_spec.Task`, the form that Dask's schedulers use themselves."""

    def refusal(self, plan: Plan) -> str:
        """Of the schedulers only distributed places tasks and values."""
        self.can_pin = self.can_put = self.client is not None
        return super().refusal(plan)

    def start(self) -> None:
        """Start the cluster, if there is one."""
        self.client: Any = None
        if self.options["scheduler"] == "distributed":
            import distributed

            self.client = distributed.Client(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=50,
            )
            self.client.wait_for_workers(self.workers)

    def run(self, plan: Plan) -> list[Any]:
        """Make the graph and get the kept keys."""
        from dask._task_spec import Task, TaskRef

        function = plan.function
        # A key of its own for each run: distributed would have results of the last one still.
        self.run_number = getattr(self, "run_number", 0) + 1
        name = f"run{self.run_number}"
        graph = {
            (name, number): Task((name, number), function, *constants, *[TaskRef((name, before)) for before in needed])
            for number, constants, needed in plan.calls()
        }
        keys = [(name, number) for number in plan.kept]
        if plan.workload.is_pinned:
            return self._on_workers(plan, name)
        if self.client is None:
            return list(self._get(graph, keys))
        futures = self.client.get(graph, keys, sync=False)
        self.submitted()
        return list(self.client.gather(futures))

    def _on_workers(self, plan: Plan, name: str) -> list[Any]:
        workers = sorted(self.client.scheduler_info()["workers"])
        futures: list[Any] = []
        for number, constants, needed in plan.calls():
            inputs = [futures[before] for before in needed]
            place = workers[number % len(workers)]
            futures.append(self.client.submit(plan.function, *constants, *inputs, key=(name, number), workers=[place]))
        return list(self.client.gather([futures[number] for number in plan.kept]))

    def put(self, value: Any) -> Any:
        """Straight to a worker."""
        return self.client.scatter(value, direct=True, hash=False)

    def _get(self, graph: Any, keys: Any) -> Any:
        if self.options["scheduler"] == "sync":
            from dask.local import get_sync

            return get_sync(graph, keys)
        from dask.threaded import get

        return get(graph, keys, num_workers=self.workers)

    def stop(self) -> None:
        """End the cluster."""
        if self.client is not None:
            self.client.shutdown()

    def versions(self) -> dict[str, str]:
        """Dask's, and distributed's where it runs."""
        from importlib.metadata import version

        return {name: version(name) for name in (("dask", "distributed") if self.client is not None else ("dask",))}
