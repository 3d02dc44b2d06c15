"""`concurrent.futures.ProcessPoolExecutor`: what everybody has."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan
from headrace.bench.pool_drivers import Call, Calls, run_deep, run_wide

#: Chunks for each worker of a map that is cut by hand.
_CHUNKS = 8


class Pool(Engine):
    """A pool, driven by graphlib or by rows. Where tasks are told their worker, a pool for each."""

    def start(self) -> None:
        """Fork the workers."""
        self.can_pin = not self.options.get("use_map")
        self.pool = ProcessPoolExecutor(self.workers)
        self.pools: list[ProcessPoolExecutor] = []
        assert list(self.pool.map(abs, range(100))) == list(range(100))

    def run(self, plan: Plan) -> list[Any]:
        """Drive the graph."""
        if self.options.get("use_map"):
            return self._by_rows(plan)
        function = plan.function
        if plan.workload.is_pinned:
            return self._on_workers(plan)
        calls: Calls = {number: Call(function, needed, constants) for number, constants, needed in plan.calls()}
        values = (run_deep if plan.is_deep else run_wide)(self.pool, calls)
        return [values[number] for number in plan.kept]

    def _on_workers(self, plan: Plan) -> list[Any]:
        """One task after the other."""
        self.pools = self.pools or [ProcessPoolExecutor(1) for _ in range(self.workers)]
        values: list[Any] = []
        for number, constants, needed in plan.calls():
            inputs = [values[before] for before in needed]
            values.append(self.pools[number % self.workers].submit(plan.function, *constants, *inputs).result())
        return [values[number] for number in plan.kept]

    def _by_rows(self, plan: Plan) -> list[Any]:
        values: dict[int, Any] = {}
        function, predecessors = plan.function, plan.predecessors
        for row in plan.levels:
            calls = [(*plan.constants(number), *[values[before] for before in predecessors[number]]) for number in row]
            chunk = max(1, len(row) // (self.workers * _CHUNKS))
            values.update(zip(row, self.pool.map(_Starred(function), calls, chunksize=chunk), strict=True))
        return [values[number] for number in plan.kept]

    def stop(self) -> None:
        """End the workers."""
        for pool in (self.pool, *self.pools):
            pool.shutdown()

    def versions(self) -> dict[str, str]:
        """The interpreter's, whose part it is."""
        return {"python": platform.python_version()}


class _Starred:
    """Calls with a tuple of arguments."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        return self.function(*arguments)
