"""What can be asked: each study is a list of workloads that a peer runs, and how large they may become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.bench.plans import Workload, parse

#: What one task may take at least where a study asks how fine tasks may be.
GRAINS_US = (100_000, 10_000, 3_000, 1_000, 300, 100, 30, 10, 3, 1)
#: Where an engine has little to win, or others have a way that is made for it.
HARD = (
    "independent:tasks=8:body=sleep:us=200000",
    "independent:tasks=8:body=spin:us=100000",
    "independent:tasks=2",
    "chain:tasks=4",
    "stencil_1d:tasks=16",
    "independent:tasks=10000",
    "map_reduce:tasks=300:payload=1000000",
    "dask:graph=rechunk:tasks=400",
    "dask:graph=bag:tasks=400",
)
PAYLOADS_BYTES = (1 << 10, 1 << 16, 1 << 20, 16 << 20, 200_000_000)
WORKERS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Item:
    """One workload of a study."""

    workload: Workload
    tasks_max: int
    """What it grows to if the peer is fast enough."""
    workers: int = 0
    """If not as many as the run has."""
    repeats: int = 20
    is_fixed: bool = False
    """Whether it has its size, however slow the peer is."""


@dataclass(frozen=True)
class Study:
    """One question."""

    name: str
    question: str
    items: Callable[[list[Workload], int, int], list[Item]]
    """Made of the chosen workloads, of the size of the run and of the number of workers."""


def _ladder(workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [Item(workload, workload.sizes.tasks or tasks, is_fixed=bool(workload.file)) for workload in workloads]


def _latency(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [
        Item(parse("independent:tasks=1"), 1, repeats=500, is_fixed=True),
        Item(parse("chain:body=stamp"), min(tasks, 1_000)),
        Item(parse("stencil_1d:body=stamp"), min(tasks, 10_000)),
        Item(parse("independent:body=stamp"), min(tasks, 10_000)),
    ]


def _size(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    sizes = [size for size in (100, 1_000, 10_000, 100_000, 1_000_000) if size <= 100 * tasks]
    return [
        Item(parse(shape).sized(size), size, repeats=5)
        for shape in ("independent", "stencil_1d:width=100")
        for size in sizes
    ]


def _grain(_workloads: list[Workload], tasks: int, workers: int) -> list[Item]:
    """Rows of twice as many tasks as workers, as Task Bench has them, and fewer the longer the tasks are."""
    items = []
    for grain_us in GRAINS_US:
        most = max(4 * workers, min(tasks, int(workers * 400_000 / grain_us)))
        for shape in ("stencil_1d", "trivial"):
            workload = parse(f"{shape}:width={2 * workers}:body=spin:us={grain_us}")
            items.append(Item(workload, most, repeats=5))
    return items


def _workers(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [
        Item(parse(text), most, workers=workers, repeats=5)
        for workers in WORKERS
        for text, most in (("independent", tasks), ("stencil_1d", tasks), ("independent:body=spin:us=100", tasks // 4))
    ]


def _payload(_workloads: list[Workload], _tasks: int, _workers: int) -> list[Item]:
    return [Item(parse(f"chain:tasks=10:payload={size}"), 10, repeats=5, is_fixed=True) for size in PAYLOADS_BYTES]


def _hard(_workloads: list[Workload], _tasks: int, _workers: int) -> list[Item]:
    return [Item(parse(text), 0, is_fixed=True) for text in HARD]


STUDIES = {
    study.name: study
    for study in (
        Study("ladder", "What does a task cost, shape by shape?", _ladder),
        Study("latency", "How long does one call take, a hop, the way to the first task?", _latency),
        Study("size", "Does the cost of a task depend on the size of the graph?", _size),
        Study("grain", "How short may tasks be before half of the workers' time is lost (METG 50 %)?", _grain),
        Study("workers", "What do more workers bring, and what do they cost where there are no more cores?", _workers),
        Study("hard", "Where does headrace not win: long tasks, tiny graphs, maps cut by hand, shuffles?", _hard),
        Study("payload", "What does a value cost that is handed on, by its size?", _payload),
    )
}

#: The workloads that are run if none are named.
WORKLOADS = ("independent", "chain", "fan", "tree", "stencil_1d", "fft", "map_reduce", "layered")
