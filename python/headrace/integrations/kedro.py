"""Kedro's pipelines on headrace: `kedro run --runner=headrace.integrations.kedro.HeadraceRunner`."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

from kedro.runner import ParallelRunner, ThreadRunner
from kedro.runner.task import Task

import headrace

if TYPE_CHECKING:
    from typing import Literal

    Mode = Literal["processes", "threads"]


class _Runs:
    """Runs a whole pipeline as one graph: which node is ready is not looked for anew at each end of one."""

    _max_workers: int
    _mode: Mode

    def _run(self: Any, pipeline: Any, catalog: Any, hook_manager: Any = None, run_id: str | None = None) -> None:
        self._validate_catalog(catalog)
        self._validate_nodes(pipeline.nodes)
        self._set_manager_datasets(catalog)
        graph = headrace.Graph(by_reference=self._mode == "threads")
        placed: dict[Any, headrace.Node[Any]] = {}
        for node in pipeline.nodes:  # in topological order
            task = Task(
                node=node,
                catalog=catalog if self._mode == "threads" else part_for(node, catalog),
                is_async=self._is_async,
                hook_manager=hook_manager if self._mode == "threads" else None,
                run_id=run_id,
                parallel=self._mode != "threads",
            )
            needed = pipeline.node_dependencies[node]
            if not needed <= placed.keys():
                self._raise_runtime_error(set(pipeline.nodes) - set(placed), set(), set(), None)
            placed[node] = graph.add(run_task, task, [placed[other] for other in needed])
        nodes = list(placed)
        done: set[Any] = set()
        load_counts = Counter(chain.from_iterable(node.inputs for node in nodes))
        with headrace.Client(workers=self._get_required_workers_count(pipeline), mode=self._mode) as client:
            run = client.submit(graph, keep=list(placed.values()), on_error="stop")
            for at, error in run.as_completed(errors="return"):
                if isinstance(error, BaseException):
                    self._suggest_resume_scenario(pipeline, done, catalog)
                    raise run.failure() or error
                done.add(node := nodes[at.index])
                self._logger.info("Completed node: %s", node.name)
                self._logger.info("Completed %d out of %d tasks", len(done), len(nodes))
                self._release_datasets(node, catalog, load_counts, pipeline)


class HeadraceRunner(_Runs, ThreadRunner):  # type: ignore[misc]
    """Runs nodes on threads, in one graph. Hooks run, and datasets are those of this process.

    Args:
        max_workers: how many threads; by default as many as there are cores.
        is_async: not for threads, as in Kedro's own runner.
    """

    _mode = "threads"


class HeadraceParallelRunner(_Runs, ParallelRunner):  # type: ignore[misc]
    """Runs nodes in worker processes, in one graph. Kedro's conditions for its `ParallelRunner` hold.

    Args:
        max_workers: how many processes; by default as many as there are cores.
        is_async: load and save the datasets of a node on threads.
    """

    _mode = "processes"

    def __init__(self, max_workers: int | None = None, is_async: bool = False) -> None:
        super().__init__(max_workers=max_workers, is_async=is_async)


def run_task(task: Any, _needed: list[None]) -> None:
    """Run a node, once what it needs has run: data goes through the catalog."""
    task.execute()


def part_for(node: Any, catalog: Any) -> Any:
    """Give a catalog of what a node reads and writes: the whole one would travel with each node."""
    return type(catalog)({name: catalog[name] for name in [*node.inputs, *node.outputs]})
