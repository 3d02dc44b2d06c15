"""Frisky."""

from __future__ import annotations

import itertools
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class FriskyEngine(Engine):
    """Its client, which is Dask's in all that is used here: a future for each task, futures as arguments."""

    packages = ("frisky",)
    can_put = True

    def start(self) -> None:
        """Start scheduler and workers."""
        import frisky

        self.cluster = frisky.LocalCluster(
            n_workers=self.workers, threads_per_worker=1, processes=True, silence_summary=True
        )
        self.client = self.cluster.get_client()
        self.count = itertools.count()

    def run(self, plan: Plan) -> list[Any]:
        """Submit and gather."""
        submit, function = self.client.submit, plan.function
        futures: list[Any] = []
        run = next(self.count)
        for number, constants, needed in plan.calls():
            inputs = [futures[before] for before in needed]
            futures.append(submit(function, *constants, *inputs, key=f"run{run}-{number}"))
        self.submitted()
        return list(self.client.gather([futures[number] for number in plan.kept]))

    def put(self, value: Any) -> Any:
        """To a worker."""
        return self.client.scatter(value)

    def stop(self) -> None:
        """End them."""
        self.client.close()
        self.cluster.close()
