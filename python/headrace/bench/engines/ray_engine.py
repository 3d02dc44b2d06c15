"""Ray."""

from __future__ import annotations

import os
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class RayEngine(Engine):
    """Tasks of a remote function; what they hand on lies in its object store, or travels inline if it is small.

    Where a task is told its worker, actors are the workers: there is no other way on one machine.
    """

    packages = ("ray",)
    can_pin = True
    can_put = True

    def start(self) -> None:
        """Start a local cluster."""
        self.ray = start_ray(self.workers)
        self.remotes: dict[Any, Any] = {}
        self.actors: dict[Any, list[Any]] = {}

    def run(self, plan: Plan) -> list[Any]:
        """One remote call a task."""
        calls = self._calls(plan)
        refs: list[Any] = []
        for number, constants, needed in plan.calls():
            refs.append(calls[number % len(calls)](*constants, *[refs[before] for before in needed]))
        self.submitted()
        return list(self.ray.get([refs[number] for number in plan.kept]))

    def _calls(self, plan: Plan) -> list[Any]:
        """What starts a task: one remote function, or a method of each actor."""
        function = plan.function
        if plan.workload.is_pinned:
            if function not in self.actors:
                actor = self.ray.remote(num_cpus=0)(_Caller)
                self.actors[function] = [actor.remote(function) for _ in range(self.workers)]
            return [actor.call.remote for actor in self.actors[function]]
        if function not in self.remotes:
            self.remotes[function] = self.ray.remote(num_cpus=1)(function)
        return [self.remotes[function].remote]

    def put(self, value: Any) -> Any:
        """Into the object store."""
        return self.ray.put(value)

    def stop(self) -> None:
        """End the cluster."""
        self.ray.shutdown()


class _Caller:
    """An actor that calls one function."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def call(self, *arguments: Any) -> Any:
        """Call it."""
        return self.function(*arguments)


def start_ray(workers: int) -> Any:
    """Start a local cluster; give the module."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=5 << 30)
    return ray
