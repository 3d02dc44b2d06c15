"""Airflow-style scheduling, a model of our own: task states in a database, and a loop that looks at them.

What it has of Airflow: the states (none, scheduled, queued, running, success) with a commit each, a loop that loads
all task instances of the run and examines the unfinished ones, `max_tis_per_query`, `max_active_tasks_per_dag` and
`parallelism` at their defaults, workers that get keys from a queue and report to it, XCom rows, and the sleep of
`scheduler_idle_sleep_time` when a loop found nothing to do. What it leaves out makes it faster: worker processes stay
(Airflow forks and supervises one for each task), there is no API server between task and database, no DAG file is
parsed, no log is written.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import sqlite3
import time
from pathlib import Path
from typing import Any

from headrace.bench.engine import CALIBRATION, Engine
from headrace.bench.plans import Plan, parse

#: Airflow's defaults: scheduler.max_tis_per_query, core.max_active_tasks_per_dag, scheduler.scheduler_idle_sleep_time.
_TASKS_A_QUERY = 16
_ACTIVE_MAX = 16
_SLEEP_S = 1.0
#: Up to so many tasks their times are read back.
_TIMES_MAX = 100

_TABLES = """
CREATE TABLE dag_run (run INTEGER PRIMARY KEY, workload TEXT, state TEXT);
CREATE TABLE task_instance (
  run INTEGER, task INTEGER, state TEXT,
  queued_at DOUBLE PRECISION, started_at DOUBLE PRECISION, ended_at DOUBLE PRECISION,
  PRIMARY KEY (run, task));
CREATE INDEX task_instance_state ON task_instance (run, state);
CREATE TABLE xcom (run INTEGER, task INTEGER, value BLOB, PRIMARY KEY (run, task));
"""


class AirflowStyle(Engine):
    """The scheduler in this process, workers beside it, and the database between them."""

    def start(self) -> None:
        """Start the database and the workers."""
        self.scratch = Path(os.environ["HEADRACE_BENCH_SCRATCH"])
        self.server: Any = None
        if self.options.get("database") == "postgres":
            from headrace.bench.engines.servers import start_postgres

            self.server, self.address = start_postgres(self.scratch)
        else:
            self.address = str(self.scratch / "airflow.db")
        context = multiprocessing.get_context("fork")
        self.queue, self.events = context.SimpleQueue(), context.SimpleQueue()
        folder = str(self.scratch) if self.options.get("by_reference") else ""
        with Database(self.address) as database:
            database.script(_TABLES)
        told = os.environ[CALIBRATION].split(":") if self.options.get("is_calibrated") else ("0", "0")
        lasts_s = (float(told[0]), float(told[1]))
        self.processes = [
            context.Process(target=_work, args=(self.address, self.queue, self.events, folder, lasts_s), daemon=True)
            for _ in range(self.workers)
        ]
        for process in self.processes:
            process.start()
        self.database = Database(self.address)
        self.runs = itertools.count(1)
        self.sleep_s: float | None = self.options.get("sleep_s", _SLEEP_S)

    def run(self, plan: Plan) -> list[Any]:
        """Add a run, and schedule until it has ended."""
        run = next(self.runs)
        database = self.database
        with database.transaction():
            database.execute("INSERT INTO dag_run VALUES (?, ?, 'running')", (run, str(plan.workload)))
            database.many(
                "INSERT INTO task_instance (run, task, state) VALUES (?, ?, 'none')",
                [(run, task) for task in range(len(plan))],
            )
        self.submitted()
        self._schedule(run, plan)
        rows = dict(database.rows("SELECT task, value FROM xcom WHERE run = ?", (run,), plan.kept))
        if len(plan) <= _TIMES_MAX:
            times = "SELECT task, queued_at, started_at, ended_at FROM task_instance WHERE run = ?"
            self.own_times = {task: (a, b, c) for task, a, b, c in database.execute(times, (run,))}
        return [_unpacked(rows[task]) for task in plan.kept]

    def _schedule(self, run: int, plan: Plan) -> None:
        """The scheduler's loop."""
        active = 0
        while True:
            unfinished = self._examine(run, plan)
            if not unfinished:
                return
            queued = self._queue(run, min(_TASKS_A_QUERY, _ACTIVE_MAX - active))
            active += queued
            ended = 0
            while not self.events.empty():
                self._note(self.events.get())
                ended += 1
            if not ended and not queued:
                if self.sleep_s is not None:
                    time.sleep(self.sleep_s)
                else:
                    self._note(self.events.get())
                    ended += 1
            active -= ended

    def _note(self, event: tuple[int, str]) -> None:
        if event[1]:
            raise RuntimeError(f"task {event[0]}: {event[1]}")

    def _examine(self, run: int, plan: Plan) -> int:
        """Look at all task instances, and mark those whose upstream tasks have succeeded; how many have not ended."""
        database, predecessors = self.database, plan.predecessors
        with database.transaction():
            states = dict(database.execute("SELECT task, state FROM task_instance WHERE run = ?", (run,)))
            ready = [
                task
                for task, state in states.items()
                if state == "none" and all(states[before] == "success" for before in predecessors[task])
            ]
            database.mark(run, ready, "scheduled")
            left: int = sum(state != "success" for state in states.values())
            if not left:
                database.execute("UPDATE dag_run SET state = 'success' WHERE run = ?", (run,))
        return left

    def _queue(self, run: int, most: int) -> int:
        """Give scheduled tasks to the executor."""
        if most <= 0:
            return 0
        database = self.database
        with database.transaction():
            found = database.execute(
                "SELECT task FROM task_instance WHERE run = ? AND state = 'scheduled' ORDER BY task LIMIT ?",
                (run, most),
            )
            tasks = [row[0] for row in found]
            database.mark(run, tasks, "queued", "queued_at")
        for task in tasks:
            self.queue.put((run, task))
        return len(tasks)

    def stop(self) -> None:
        """End the workers and the database."""
        for _ in self.processes:
            self.queue.put(None)
        for process in self.processes:
            process.join(5)
        self.database.close()
        if self.server is not None:
            self.server.terminate()
            self.server.wait(20)

    def versions(self) -> dict[str, str]:
        """The database's."""
        if self.options.get("database") == "postgres":
            return {"postgresql": next(iter(self.database.execute("SHOW server_version")))[0]}
        return {"sqlite": sqlite3.sqlite_version}


class Database:
    """SQLite or PostgreSQL, spoken to in SQLite's way.

    Args:
        address: a file, or what libpq takes.
    """

    def __init__(self, address: str) -> None:
        self.is_postgres = "host=" in address
        self.connection: Any
        if self.is_postgres:
            import psycopg

            self.connection = psycopg.connect(address, autocommit=True)
        else:
            self.connection = sqlite3.connect(address, timeout=60, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")

    def execute(self, text: str, values: tuple[Any, ...] = ()) -> Any:
        """Run a statement; its rows."""
        return self.connection.execute(text.replace("?", "%s") if self.is_postgres else text, values)

    def many(self, text: str, values: list[tuple[Any, ...]]) -> None:
        """Run a statement for each tuple."""
        if self.is_postgres:
            self.connection.cursor().executemany(text.replace("?", "%s"), values)
        else:
            self.connection.executemany(text, values)

    def rows(self, text: str, values: tuple[Any, ...], tasks: list[int]) -> list[Any]:
        """The rows of some tasks."""
        return [
            row
            for some in _chunks(tasks)
            for row in self.execute(f"{text} AND task IN ({','.join(map(str, some))})", values)
        ]

    def mark(self, run: int, tasks: list[int], state: str, stamp: str = "") -> None:
        """Set the state of tasks."""
        also = f", {stamp} = {time.time()}" if stamp else ""
        for some in _chunks(tasks):
            names = ",".join(map(str, some))
            self.execute(f"UPDATE task_instance SET state = ?{also} WHERE run = ? AND task IN ({names})", (state, run))

    def script(self, text: str) -> None:
        """Run several statements."""
        for statement in filter(str.strip, text.split(";")):
            self.execute(statement.replace("BLOB", "BYTEA") if self.is_postgres else statement)

    def transaction(self) -> Any:
        """A block that is committed as a whole."""
        return self.connection.transaction() if self.is_postgres else _SqliteTransaction(self.connection)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _work(address: str, queue: Any, events: Any, folder: str, lasts_s: tuple[float, float]) -> None:
    """One worker: keys in, states and values into the database, events out. A calibrated one begins and ends late."""
    database = Database(address)
    plans: dict[int, Plan] = {}
    while (key := queue.get()) is not None:
        run, task = key
        try:
            if run not in plans:
                text = next(iter(database.execute("SELECT workload FROM dag_run WHERE run = ?", (run,))))[0]
                plans = {run: Plan(parse(text))}
            plan = plans[run]
            if lasts_s[0]:
                time.sleep(lasts_s[0])
            database.mark(run, [task], "running", "started_at")
            needed = list(plan.predecessors[task])
            found = dict(database.rows("SELECT task, value FROM xcom WHERE run = ?", (run,), needed))
            value = plan.function(*plan.constants(task), *[_unpacked(found[before]) for before in needed])
            if lasts_s[1]:
                time.sleep(lasts_s[1])
            packed = _packed(value, Path(folder, f"{run}-{task}.xcom") if folder else None)
            database.execute("INSERT INTO xcom VALUES (?, ?, ?)", (run, task, packed))
            database.mark(run, [task], "success", "ended_at")
            events.put((task, ""))
        except Exception as error:  # the scheduler raises it
            events.put((task, f"{type(error).__name__}: {error}"))
    database.close()


def _packed(value: Any, file: Path | None) -> bytes:
    """A value as it stands in its XCom row: itself, or the name of its file."""
    data = pickle.dumps(value, protocol=5)
    if file is None:
        return b"v" + data
    file.write_bytes(data)
    return b"f" + os.fsencode(file)


def _unpacked(data: bytes) -> Any:
    content = bytes(data)
    return pickle.loads(content[1:] if content[:1] == b"v" else Path(os.fsdecode(content[1:])).read_bytes())


def _chunks(tasks: list[int]) -> list[list[int]]:
    return [tasks[start : start + 500] for start in range(0, len(tasks), 500)]
