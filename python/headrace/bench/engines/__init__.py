"""The engines by name: where their module is, what it needs, and which of a system's ways is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import UsageError


@dataclass(frozen=True)
class Peer:
    """An engine that can be asked for."""

    name: str
    module: str
    """In this package; its class is called as its last word says, in CapWords."""
    kind: str
    fast_path: str
    """Which of the system's ways is used, in one line."""
    options: Mapping[str, Any] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    """What pip installs into its environment; nothing if this interpreter will do."""
    programs: tuple[str, ...] = ()
    """Programs that must be there, with the Debian package that brings each: `redis-server (redis-server)`."""
    start_timeout_s: float = 120
    copies: str = ""
    """How often a large array is copied between two tasks, where that is known."""
    rounds_max: int = 100
    """Of how many rounds it takes part; one for what takes minutes and is a thousand times slower."""
    patience: float = 1
    """Its part of a run's time, where that is limited."""
    calibrated_by: str = ""
    """The peer that tells this model, in the same run, how long a task takes."""
    go: str = ""
    """The Go package that `--install` builds its program from."""


#: What bodies need, in the environment of every peer that has one.
_BODIES = ("dask>=2026.1", "numpy>=1.26", "pandas>=2")
_PIPE_COPIES = "4 for each way through a pipe: into a pickle, into the pipe, out of it, out of the pickle"


def _airflow_style(name: str, fast_path: str, **options: Any) -> Peer:
    on_postgres = options.get("database") == "postgres"
    return Peer(
        name,
        "airflow_style",
        "model",
        fast_path,
        options,
        requirements=("psycopg[binary]>=3.2", *_BODIES) if on_postgres else (),
        programs=("postgres (postgresql)",) if on_postgres else (),
        copies="into its row and out of it, pickled: 4"
        if not options.get("by_reference")
        else "into a file and out: 4",
        calibrated_by="airflow" if options.get("is_calibrated") else "",
        # Those that sleep are as slow as what they model.
        rounds_max=100 if options.get("sleep_s", 1.0) is None else 1,
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "headrace",
            "headrace_engine",
            "ours",
            "Graph.add for each task, submit, results of the kept tasks",
            copies="1, into shared memory; none if the task made it with headrace.empty or was given it so",
            patience=3,
        ),
        Peer(
            "headrace-map",
            "headrace_engine",
            "ours",
            "Graph.map for rows of tasks that need nothing, Graph.add for the others",
            {"use_map": True},
        ),
        Peer("headrace-threads", "headrace_engine", "ours", 'Client(mode="threads")', {"mode": "threads"}),
        Peer("headrace-sync", "headrace_engine", "ours", 'Client(mode="sync")', {"mode": "sync"}),
        Peer(
            "pool",
            "pool",
            "library",
            "ProcessPoolExecutor with graphlib: the faster of two drivers, by the graph's depth",
            copies=f"{_PIPE_COPIES}; two ways, by the client",
        ),
        Peer(
            "pool-map",
            "pool",
            "library",
            "ProcessPoolExecutor.map with chunks cut by hand: eight for each worker; rows with a barrier behind each",
            {"use_map": True},
        ),
        Peer(
            "joblib",
            "joblib_engine",
            "library",
            "Parallel on loky, automatic batches; a row of ready tasks at a time",
            requirements=("joblib>=1.5", *_BODIES),
            copies="results through a pipe (4); arguments of 1 MB and more through a memory map: 1",
        ),
        Peer(
            "dask-sync",
            "dask_engine",
            "library",
            "dask.local.get_sync of a graph of Tasks",
            {"scheduler": "sync"},
            requirements=("distributed>=2026.1", *_BODIES, "pyarrow>=16"),
            copies="none: one process",
        ),
        Peer(
            "dask-threaded",
            "dask_engine",
            "library",
            "dask.threaded.get of a graph of Tasks",
            {"scheduler": "threaded"},
            requirements=("distributed>=2026.1", *_BODIES, "pyarrow>=16"),
            copies="none: one process",
        ),
        Peer(
            "dask-distributed",
            "dask_engine",
            "cluster",
            "LocalCluster of processes with one thread, Client.get of a graph of Tasks",
            {"scheduler": "distributed"},
            requirements=("distributed>=2026.1", *_BODIES, "pyarrow>=16"),
            copies="none on the same worker; into a socket and out of it to another: 2",
        ),
        Peer(
            "ray",
            "ray_engine",
            "cluster",
            "a remote function, refs as arguments, one ray.get at the end",
            requirements=("ray>=2.50", *_BODIES),
            copies="1, into its object store",
        ),
        Peer(
            "ray-compiled",
            "ray_compiled",
            "cluster",
            "a compiled graph over one actor for each worker, executed again and again; compiling is not timed",
            requirements=("ray[cgraph]>=2.50", *_BODIES),
            copies="1, into the channel's shared memory",
        ),
        Peer(
            "frisky",
            "frisky_engine",
            "cluster",
            "LocalCluster of processes with one thread; submit for each task, futures as arguments",
            requirements=("frisky>=0.7", *_BODIES),
        ),
        Peer(
            "parsl",
            "parsl_engine",
            "cluster",
            "HighThroughputExecutor on this host, futures as arguments",
            requirements=("parsl>=2026.1", *_BODIES),
        ),
        Peer(
            "scaler",
            "scaler_engine",
            "cluster",
            "SchedulerClusterCombo, Client.get of a graph",
            requirements=("opengris-scaler>=2.9", *_BODIES),
        ),
        Peer(
            "prefect",
            "prefect_engine",
            "workflow",
            "a flow with ThreadPoolTaskRunner, task.submit with futures as arguments, its own server",
            requirements=("prefect>=3.4", *_BODIES),
            start_timeout_s=240,
            rounds_max=1,
        ),
        Peer(
            "prefect-dask",
            "prefect_engine",
            "workflow",
            "the same with DaskTaskRunner: a cluster of processes with one thread for each flow",
            {"runner": "dask"},
            requirements=("prefect-dask>=0.3", *_BODIES),
            start_timeout_s=240,
            rounds_max=1,
        ),
        Peer(
            "celery",
            "celery_engine",
            "queue",
            "Celery with Redis, prefork workers; graphlib drives, results over a list in Redis",
            requirements=("celery>=5.5", "redis>=5", *_BODIES),
            programs=("redis-server (redis-server)",),
        ),
        Peer(
            "dramatiq",
            "dramatiq_engine",
            "queue",
            "Dramatiq with Redis, worker processes of one thread; graphlib drives, results over a list in Redis",
            requirements=("dramatiq>=1.17", "redis>=5", *_BODIES),
            programs=("redis-server (redis-server)",),
        ),
        Peer(
            "hyperqueue",
            "hyperqueue_engine",
            "cluster",
            "its Python API, a job of function tasks with deps; values through files",
            requirements=("hyperqueue>=0.20", *_BODIES),
            rounds_max=1,
        ),
        Peer(
            "luigi",
            "luigi_engine",
            "workflow",
            "luigi.build with the local scheduler; values through files, as its targets",
            requirements=("luigi>=3.6", *_BODIES),
        ),
        Peer(
            "metaflow",
            "metaflow_engine",
            "workflow",
            "a generated flow with one step for each row, a foreach within it, local datastore",
            requirements=("metaflow>=2.12",),
            rounds_max=1,
        ),
        Peer(
            "temporal",
            "temporal_engine",
            "workflow",
            "its development server, one workflow for a graph, an activity a task, in a pool of processes",
            requirements=("temporalio>=1.10", *_BODIES),
            go="github.com/temporalio/cli/cmd/temporal@v1.3.0",
            start_timeout_s=180,
            rounds_max=1,
        ),
        _airflow_style("airflow-style", "model: SQLite, scheduler sleeps 1 s when idle, values through the database"),
        _airflow_style(
            "airflow-style-5s",
            "model: the same, with the sleep of 5 s of its heartbeat",
            database="sqlite",
            sleep_s=5.0,
        ),
        _airflow_style("airflow-style-100ms", "model: the same, sleeps 100 ms", database="sqlite", sleep_s=0.1),
        _airflow_style("airflow-style-10ms", "model: the same, sleeps 10 ms", database="sqlite", sleep_s=0.01),
        _airflow_style(
            "airflow-style-event", "model: SQLite, woken by each end of a task", database="sqlite", sleep_s=None
        ),
        _airflow_style(
            "airflow-style-event-ref",
            "model: the same, values in files and their names in the database",
            database="sqlite",
            sleep_s=None,
            by_reference=True,
        ),
        _airflow_style(
            "airflow-style-postgres", "model: PostgreSQL, scheduler sleeps 1 s when idle", database="postgres"
        ),
        _airflow_style(
            "airflow-style-postgres-event",
            "model: PostgreSQL, woken by each end of a task",
            database="postgres",
            sleep_s=None,
        ),
        _airflow_style(
            "airflow-style-postgres-event-ref",
            "model: PostgreSQL, woken by each end of a task, values in files",
            database="postgres",
            sleep_s=None,
            by_reference=True,
        ),
        Peer(
            "airflow",
            "airflow_engine",
            "workflow",
            "Airflow 3, LocalExecutor, SQLite; api-server, scheduler and dag-processor; times from its task instances",
            requirements=("apache-airflow>=3.0", "numpy>=1.26"),
            start_timeout_s=300,
            rounds_max=1,
            patience=4,
        ),
        _airflow_style(
            "airflow-style-calibrated",
            "model: SQLite, sleeps 1 s, and a task takes as long to begin and to run as Airflow's chain told",
            is_calibrated=True,
        ),
    )
}


def chosen(names: str) -> list[Peer]:
    """Give the peers of a list with commas; `all`, or a kind such as `library`, stand for several.

    Raises:
        UsageError: there is no such peer.
    """
    found: dict[str, Peer] = {}
    for name in filter(None, (word.strip() for word in names.split(","))):
        some = [peer for peer in PEERS.values() if name in ("all", peer.name, peer.kind)]
        if not some:
            raise UsageError(f"there is no peer {name!r}; `headrace bench list` shows them")
        found |= {peer.name: peer for peer in some}
    return list(found.values())
