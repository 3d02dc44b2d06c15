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


#: What bodies need, in the environment of every peer that has one.
_BODIES = ("dask>=2026.1", "numpy>=1.26", "pandas>=2")


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
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("headrace", "headrace_engine", "ours", "Graph.add for each task, submit, results of the kept tasks"),
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
        ),
        Peer(
            "dask-sync",
            "dask_engine",
            "library",
            "dask.local.get_sync of a graph of Tasks",
            {"scheduler": "sync"},
            requirements=("distributed>=2026.1", *_BODIES),
        ),
        Peer(
            "dask-threaded",
            "dask_engine",
            "library",
            "dask.threaded.get of a graph of Tasks",
            {"scheduler": "threaded"},
            requirements=("distributed>=2026.1", *_BODIES),
        ),
        Peer(
            "dask-distributed",
            "dask_engine",
            "cluster",
            "LocalCluster of processes with one thread, Client.get of a graph of Tasks",
            {"scheduler": "distributed"},
            requirements=("distributed>=2026.1", *_BODIES),
        ),
        Peer(
            "ray",
            "ray_engine",
            "cluster",
            "a remote function, refs as arguments, one ray.get at the end",
            requirements=("ray>=2.50", *_BODIES),
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
        ),
        Peer(
            "prefect-dask",
            "prefect_engine",
            "workflow",
            "the same with DaskTaskRunner: a cluster of processes with one thread for each flow",
            {"runner": "dask"},
            requirements=("prefect-dask>=0.3", *_BODIES),
            start_timeout_s=240,
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
