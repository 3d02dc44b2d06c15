"""headrace itself."""

from __future__ import annotations

from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan


class HeadraceEngine(Engine):
    """An embedded client."""

    packages = ("headrace", "pyzmq")
    can_pin = True
    can_put = True

    def start(self) -> None:
        """Start workers, and see each of them."""
        from headrace import Client, task

        self.client = Client(workers=self.workers, mode=self.client_mode)
        if self.client_mode == "processes":
            for call in [self.client.call(task(abs, worker=worker), worker) for worker in range(self.workers)]:
                call.result()

    @property
    def client_mode(self) -> Any:
        """The client's."""
        return self.options.get("mode", "processes")

    def run(self, plan: Plan) -> list[Any]:
        """Build, submit, read."""
        from headrace import Graph, task

        graph = Graph(by_reference=self.client_mode != "processes")
        nodes: Any = []
        if self.options.get("use_map") and not plan.edges:
            numbers = range(len(plan))
            columns = list(zip(*map(plan.constants, numbers), strict=True))
            nodes = graph.map(plan.function, numbers, *columns[1:])
        elif plan.workload.is_pinned:
            steps = [task(plan.function, worker=worker) for worker in range(self.workers)]
            for number, constants, needed in plan.calls():
                nodes.append(graph.add(steps[number % self.workers], *constants, *[nodes[before] for before in needed]))
        else:
            add, function = graph.add, plan.function
            for _number, constants, needed in plan.calls():
                nodes.append(add(function, *constants, *[nodes[before] for before in needed]))
        run = self.client.submit(graph, keep=[nodes[number] for number in plan.kept])
        self.submitted()
        return list(run.results())

    def put(self, value: Any) -> Any:
        """Into shared memory."""
        return self.client.put(value)

    def stop(self) -> None:
        """End the client."""
        self.client.close()
