"""Ray's compiled graphs: a graph is laid out over actors once, and then run any number of times through channels."""

from __future__ import annotations

from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.engines.ray_engine import start_ray
from headrace.bench.plans import Plan

#: Bytes of a channel beside the value itself.
_BUFFER_BYTES = 1 << 16
_RUN_S = 100
_TASKS_MAX = 1_000


class RayCompiled(Engine):
    """One actor a worker; a column of the graph stays on its actor. A graph is compiled once, untimed."""

    packages = ("ray",)

    def start(self) -> None:
        """Start a local cluster, and an actor for each worker."""
        self.ray = start_ray(self.workers)
        self.remote = self.ray.remote(num_cpus=1)(_Caller)
        self.actors: list[Any] = []
        self.workload = ""
        self.compiled: Any = None

    def refusal(self, plan: Plan) -> str:
        """Compiling takes milliseconds a task."""
        if len(plan) > _TASKS_MAX:
            return f"graphs of more than {_TASKS_MAX:,} tasks take too long to compile"
        return super().refusal(plan)

    def prepare(self, plan: Plan) -> None:
        """Compile, unless this is the graph that is compiled."""
        if self.workload != str(plan.workload):
            self._compile(plan)

    def run(self, plan: Plan) -> list[Any]:
        """Run the compiled graph."""
        self.prepare(plan)
        results = self.compiled.execute(0)
        self.submitted()
        return list(self.ray.get(results, timeout=_RUN_S))

    def _compile(self, plan: Plan) -> None:
        from ray.dag import InputNode, MultiOutputNode

        self._drop()
        self.actors = [self.remote.remote(plan.function) for _ in range(self.workers)]
        columns = {number: column for row in plan.levels for column, number in enumerate(row)}
        width = max(map(len, plan.levels))
        nodes: list[Any] = []
        with InputNode() as start:
            for number, constants, needed in plan.calls():
                actor = self.actors[columns[number] * self.workers // width]
                inputs = [nodes[before] for before in needed] or [start]
                nodes.append(actor.call.bind(len(needed), *constants, *inputs))
            graph = MultiOutputNode([nodes[number] for number in plan.kept])
        size = int(plan.workload.amount) if plan.is_large else 0
        self.compiled = graph.experimental_compile(_buffer_size_bytes=size + _BUFFER_BYTES)
        self.workload = str(plan.workload)

    def _drop(self) -> None:
        """End the last graph and its actors, which it keeps busy."""
        self.workload = ""
        if self.compiled is not None:
            self.compiled.teardown(kill_actors=True)
            self.compiled = None

    def stop(self) -> None:
        """End the cluster."""
        self._drop()
        self.ray.shutdown()


class _Caller:
    """An actor that calls the one function of the plan."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def call(self, inputs: int, *arguments: Any) -> Any:
        """Call it. What has no inputs was given the graph's own, which is none of its arguments."""
        return self.function(*(arguments if inputs else arguments[:-1]))
