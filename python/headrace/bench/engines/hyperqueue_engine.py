"""HyperQueue."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from pathlib import Path
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan

_LOOK_S = 0.002


class HyperqueueEngine(Engine):
    """Function tasks of its Python API: each starts an interpreter, and values go through files."""

    packages = ("hyperqueue",)

    def start(self) -> None:
        """Start a server and a worker with as many cores."""
        from hyperqueue.cluster import LocalCluster, WorkerConfig

        self.scratch = Path(os.environ["HEADRACE_BENCH_SCRATCH"])
        self.cluster = LocalCluster()
        self.cluster.start_worker(WorkerConfig(cores=self.workers))
        self.client = self.cluster.client()
        self.runs = itertools.count()

    def run(self, plan: Plan) -> list[Any]:
        """Submit one job."""
        from hyperqueue import Job

        folder = self.scratch / f"run{next(self.runs)}"
        folder.mkdir()
        job = Job(default_workdir=str(folder))
        tasks: list[Any] = []
        for number, constants, needed in plan.calls():
            task = job.function(
                call,
                args=(str(folder), plan.function, number, constants, needed),
                stdout=None,
                stderr=None,
                deps=[tasks[before] for before in needed],
            )
            tasks.append(task)
        self.client.submit(job)
        self.submitted()
        # Its own wait asks once a second. A task that fails shows as a request that takes too long.
        waited = [folder / f"{number}.value" for number in plan.kept]
        while not all(path.exists() for path in waited):
            time.sleep(_LOOK_S)
        return [pickle.loads((folder / f"{number}.value").read_bytes()) for number in plan.kept]

    def stop(self) -> None:
        """End the cluster."""
        self.cluster.stop()


def call(folder: str, function: Any, number: int, constants: tuple[Any, ...], needed: tuple[int, ...]) -> None:
    """In a task: read inputs, call, write."""
    inputs = [pickle.loads(Path(folder, f"{before}.value").read_bytes()) for before in needed]
    value = function(*constants, *inputs)
    unfinished = Path(folder, f"{number}.part")
    unfinished.write_bytes(pickle.dumps(value, protocol=5))
    unfinished.rename(Path(folder, f"{number}.value"))
