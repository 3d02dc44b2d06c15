"""Ray."""

from __future__ import annotations

import os
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class RayEngine(Engine):
    """Tasks of a remote function; what they hand on lies in its object store, or travels inline if it is small."""

    packages = ("ray",)

    def start(self) -> None:
        """Start a local cluster."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray = ray
        # Its workers must be those of this environment, and start with the function's module in reach.
        ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False, object_store_memory=2 << 30)
        self.remotes: dict[Any, Any] = {}

    def run(self, plan: Plan) -> list[Any]:
        """One remote call a task."""
        if plan.function not in self.remotes:
            self.remotes[plan.function] = self.ray.remote(num_cpus=1)(plan.function)
        remote = self.remotes[plan.function].remote
        refs: list[Any] = []
        for _number, constants, needed in plan.calls():
            refs.append(remote(*constants, *[refs[before] for before in needed]))
        self.submitted()
        return list(self.ray.get([refs[number] for number in plan.kept]))

    def stop(self) -> None:
        """End the cluster."""
        self.ray.shutdown()
