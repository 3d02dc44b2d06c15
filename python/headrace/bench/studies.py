"""What can be asked: each study is a list of workloads that a peer runs, and how large they may become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.bench.plans import Workload, parse
from headrace.bench.results import Cell

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
    "dask:graph=array:tasks=400",
    "dask:graph=anomaly:tasks=400",
    "dask:graph=dataframe:tasks=400",
)
PAYLOADS_BYTES = (0, 1 << 10, 1 << 16, 1 << 20, 16 << 20, 200_000_000, 1_000_000_000)
#: How long the next larger payload may take, as the last one tells.
PAYLOAD_PATIENCE_S = 8.0
#: The values of the study of large ones.
LARGE_BYTES = 200_000_000
WORKERS = (1, 2, 4, 8)
#: Tasks of each graph of the study that sets the model of Airflow beside Airflow itself.
AIRFLOW_TASKS = 16
#: Below this part of the workers' time shorter tasks tell nothing more.
_EFFICIENCY_LEAST = 0.1


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
    series: str = ""
    """Items that go from light to heavy: once one is `enough`, the peer runs no further ones."""
    share: float = 1.0
    """Of the time that a workload may take."""
    keeps_memory: bool = False
    """Whether the course of memory is kept, and not its peak alone."""


@dataclass(frozen=True)
class Study:
    """One question."""

    name: str
    question: str
    items: Callable[[list[Workload], int, int], list[Item]]
    """Made of the chosen workloads, of the size of the run and of the number of workers."""
    whose: str = "all"
    """Peers and kinds that are asked in a full run, where not all are."""
    enough: Callable[[Item, Cell], str] = lambda _item, _cell: ""
    """Why a peer with this result runs no further items of the series; empty if it goes on."""


def _ladder(workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [Item(w, min(w.sizes.tasks or tasks, tasks), is_fixed=bool(w.file)) for w in workloads]


def _latency(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [
        Item(parse("independent:tasks=1"), 1, repeats=500, is_fixed=True),
        Item(parse("chain:body=stamp"), min(tasks, 1_000)),
        Item(parse("chain:body=stamp:pin=1"), min(tasks, 1_000)),
        Item(parse("stencil_1d:body=stamp"), min(tasks, 10_000)),
        Item(parse("independent:body=stamp"), min(tasks, 10_000)),
    ]


def _size(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    sizes = [size for size in (100, 1_000, 10_000, 100_000, 1_000_000) if size <= 100 * tasks]
    return [
        Item(parse(shape).sized(size), size, repeats=3, series=shape)
        for shape in ("independent", "stencil_1d")
        for size in sizes
    ]


def _size_enough(item: Item, cell: Cell) -> str:
    return "" if cell.tasks * 2 > item.tasks_max else f"{cell.tasks:,} tasks fill its time already"


def _grain(_workloads: list[Workload], tasks: int, workers: int) -> list[Item]:
    """Rows of twice as many tasks as workers, as Task Bench has them, and fewer the longer the tasks are."""
    items = []
    for shape in ("stencil_1d", "trivial"):
        for grain_us in GRAINS_US:
            most = max(4 * workers, min(tasks, int(workers * 400_000 / grain_us)))
            workload = parse(f"{shape}:width={2 * workers}:body=spin:us={grain_us}")
            items.append(Item(workload, most, repeats=5, series=shape))
    return items


def _grain_enough(item: Item, cell: Cell) -> str:
    ideal_s = cell.tasks * item.workload.amount / 1e6 / cell.workers
    is_low = ideal_s < _EFFICIENCY_LEAST * cell.median_s
    return f"less than {_EFFICIENCY_LEAST:.0%} of the time is left for tasks of this length" if is_low else ""


def _workers(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    return [
        Item(parse(text), most, workers=workers, repeats=5)
        for workers in WORKERS
        for text, most in (("independent", tasks), ("stencil_1d", tasks), ("independent:body=spin:us=100", tasks // 4))
    ]


def _large_bytes(tasks: int) -> int:
    """A run of small graphs has small values."""
    return LARGE_BYTES if tasks >= 1_000 else LARGE_BYTES // 100


def _payload(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    """Two tasks, the second of which reads what the first has made."""
    sizes = [size for size in PAYLOADS_BYTES if tasks >= 1_000 or size <= _large_bytes(tasks)]
    return [
        Item(parse(f"chain:tasks=2:payload={size}"), 2, repeats=5, is_fixed=True, series="payload") for size in sizes
    ]


def _payload_enough(item: Item, cell: Cell) -> str:
    larger = [size for size in PAYLOADS_BYTES if size > item.workload.amount]
    if not larger or item.workload.amount < 1 << 20:
        return ""
    expected_s = cell.median_s * larger[0] / item.workload.amount
    return f"{larger[0]:,} bytes would take some {expected_s:.0f} s" if expected_s > PAYLOAD_PATIENCE_S else ""


def _memory(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    """An array handed through ten tasks, each of which makes a new one of it."""
    workload = parse(f"chain:tasks=10:payload={_large_bytes(tasks)}")
    return [Item(workload, 10, repeats=1, is_fixed=True, keeps_memory=True)]


def _values(_workloads: list[Workload], tasks: int, _workers: int) -> list[Item]:
    """Through ten tasks on alternating workers, as it is; back to the client; from the client into the store."""
    texts = (
        f"chain:tasks=10:body=untouched:payload={_large_bytes(tasks)}:pin=1",
        f"independent:tasks=1:payload={_large_bytes(tasks)}",
        f"put:payload={_large_bytes(tasks)}",
    )
    return [Item(parse(text), 0, repeats=5, is_fixed=True) for text in texts]


def _airflow(_workloads: list[Workload], _tasks: int, _workers: int) -> list[Item]:
    """The chain first: it tells the calibrated model how long a task takes to start and to run."""
    return [
        Item(parse(shape).sized(AIRFLOW_TASKS), AIRFLOW_TASKS, repeats=3, is_fixed=True)
        for shape in ("chain", "independent", "fan", "tree", "stencil_1d")
    ]


def _hard(_workloads: list[Workload], _tasks: int, _workers: int) -> list[Item]:
    return [Item(parse(text), 0, is_fixed=True) for text in HARD]


_FAST = "headrace,pool,joblib,dask-threaded,dask-distributed,ray,frisky,airflow-style-event"
_WITH_MEMORY = "headrace,pool,joblib,dask-threaded,cluster,airflow-style-event,airflow-style-event-ref"
_WITH_VALUES = f"{_WITH_MEMORY},queue,luigi"
#: A model that sleeps 5 s would take minutes to say so.
_MODELS = (
    "airflow-style,airflow-style-100ms,airflow-style-10ms,airflow-style-event,airflow-style-event-ref,"
    "airflow-style-postgres,airflow-style-postgres-event,airflow-style-postgres-event-ref,airflow-style-calibrated"
)
_LADDER = "ours,library,cluster,queue,workflow,airflow-style,airflow-style-event,airflow-style-postgres-event"

STUDIES = {
    study.name: study
    for study in (
        Study(
            "airflow",
            "How near is the model of Airflow to Airflow itself?",
            _airflow,
            f"headrace,pool,airflow,{_MODELS}",
        ),
        Study("ladder", "What does a task cost, shape by shape?", _ladder, _LADDER),
        Study(
            "latency",
            "How long does one call take, a hop, the way to the first task?",
            _latency,
            "ours,library,cluster,queue,airflow-style-event,temporal",
        ),
        # Before anything that leaves memory warm.
        Study("memory", "How much memory does an array take on its way through ten tasks?", _memory, _WITH_MEMORY),
        Study(
            "hard",
            "Where does headrace not win: long tasks, tiny graphs, maps cut by hand, shuffles?",
            _hard,
            "headrace,headrace-map,headrace-sync,library",
        ),
        Study(
            "payload", "What does a value cost that is handed on, by its size?", _payload, _WITH_VALUES, _payload_enough
        ),
        Study(
            "values",
            "How long does a large array take through ten workers, into the store, to the client?",
            _values,
            "headrace,pool,dask-distributed,ray,frisky",
        ),
        Study(
            "grain",
            "How short may tasks be before half of the workers' time is lost (METG 50 %)?",
            _grain,
            _FAST,
            _grain_enough,
        ),
        Study("size", "Does the cost of a task depend on the size of the graph?", _size, _FAST, _size_enough),
        Study(
            "workers",
            "What do more workers bring, and what do they cost where there are no more cores?",
            _workers,
            "headrace,pool,dask-distributed,ray,frisky",
        ),
    )
}

#: The workloads that are run if none are named.
WORKLOADS = (
    "independent",
    "chain:tasks=1000",
    "stencil_1d",
    "tree:tasks=8191",
    "fan",
    "fft",
    "map_reduce",
    "layered",
)
