"""OpenGRIS Scaler."""

from __future__ import annotations

from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class ScalerEngine(Engine):
    """Its client's graphs: a key is a value, or a function with keys."""

    packages = ("opengris-scaler",)

    def start(self) -> None:
        """Start scheduler and workers."""
        from scaler import Client, SchedulerClusterCombo

        self.cluster = SchedulerClusterCombo(n_workers=self.workers)
        self.client = Client(address=self.cluster.get_address())

    def run(self, plan: Plan) -> list[Any]:
        """Make the graph and get the kept keys."""
        graph: dict[str, Any] = {}
        function = plan.function
        for number, constants, needed in plan.calls():
            names = [f"c{number}-{position}" for position in range(len(constants))]
            graph.update(zip(names, constants, strict=True))
            graph[f"t{number}"] = (function, *names, *[f"t{before}" for before in needed])
        keys = [f"t{number}" for number in plan.kept]
        results = self.client.get(graph, keys=keys)
        return [results[key] for key in keys] if isinstance(results, dict) else list(results)

    def stop(self) -> None:
        """End both."""
        self.client.disconnect()
        self.cluster.shutdown()
