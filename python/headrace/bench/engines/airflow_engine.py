"""Apache Airflow 3 itself: api-server, scheduler with LocalExecutor, dag-processor, on SQLite.

Its times are those of its own tables, from the trigger to the end of the run, because the ways to trigger a run and
to hear of its end take seconds of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan

_START_S = 240
_DAG_S = 120
_RUN_S = 110
_ANSWER_S = 20

_DAG = """
from airflow.sdk import DAG, task
from headrace.bench.plans import Plan, parse

PLAN = Plan(parse({workload!r}))


def body(constants, inputs):
    return PLAN.function(*constants, *inputs)


with DAG({name!r}, schedule=None, catchup=False):
    steps = []
    for number, constants, needed in PLAN.calls():
        steps.append(task(body, task_id=f"t{{number}}")(list(constants), [steps[before] for before in needed]))
"""


class AirflowEngine(Engine):
    """A private Airflow."""

    packages = ("apache-airflow",)

    def start(self) -> None:
        """Make the database and start the three services."""
        self.home = Path(os.environ["HEADRACE_BENCH_SCRATCH"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self.workers),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__SECRET_KEY": "bench",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that nobody needs here, long enough for the algorithm",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        (self.home / "dags").mkdir()
        self._airflow("db", "migrate")
        self.services = [
            subprocess.Popen([sys.executable, "-m", "airflow", *words], env=self.environment, cwd=self.home)
            for words in (("api-server", "--port", str(port)), ("scheduler", "--skip-serve-logs"), ("dag-processor",))
        ]
        self.address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the api-server does not answer after {_START_S} s")
            time.sleep(0.2)
        self.runs = itertools.count(1)
        self.token = self._ask("/auth/token")["access_token"]

    def _answers(self) -> bool:
        for service in self.services:
            if service.poll() is not None:
                raise RuntimeError(f"{service.args!r} ended with {service.returncode}")
        try:
            health = self._ask("/api/v2/monitor/health")
        except OSError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler"))

    def run(self, plan: Plan) -> list[Any]:
        """Wait for the DAG to be known, trigger a run, wait for its end."""
        text = str(plan.workload)
        name = f"plan_{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
        file = self.home / "dags" / f"{name}.py"
        if not file.exists():
            file.write_text(_DAG.format(workload=text, name=name))
        self._wait("SELECT 1 FROM serialized_dag WHERE dag_id = ?", (name,), _DAG_S)
        run = f"run{next(self.runs)}"
        self._ask(f"/api/v2/dags/{name}/dagRuns", {"dag_run_id": run, "logical_date": None})
        ended = "SELECT state, queued_at, end_date FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')"
        state, queued_at, end_date = self._wait(ended, (run,), _RUN_S)
        if state != "success":
            raise RuntimeError(f"the run of {text} ended as {state}")
        self.elapsed_s = (datetime.fromisoformat(end_date) - datetime.fromisoformat(queued_at)).total_seconds()
        times = "SELECT task_id, queued_dttm, start_date, end_date FROM task_instance WHERE run_id = ?"
        self.own_times = {int(task[1:]): _seconds(*row) for task, *row in self._rows(times, (run,))}
        rows = self._rows("SELECT task_id, value FROM xcom WHERE run_id = ? AND key = 'return_value'", (run,))
        values = {task: _plain(value) for task, value in rows}
        return [values[f"t{number}"] for number in plan.kept]

    def _ask(self, path: str, body: Any = None) -> Any:
        """Ask the api-server."""
        headers = {"Content-Type": "application/json"}
        if body is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers)
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
            return json.load(answer)

    def _wait(self, query: str, values: tuple[Any, ...], most_s: float) -> Any:
        """Ask its database until there is a row."""
        deadline = time.monotonic() + most_s
        while time.monotonic() < deadline:
            with contextlib.suppress(sqlite3.OperationalError):
                if rows := self._rows(query, values):
                    return rows[0]
            time.sleep(0.1)
        raise TimeoutError(f"not within {most_s} s: {query} {values}")

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def _airflow(self, *words: str) -> None:
        command = [sys.executable, "-m", "airflow", *words]
        subprocess.run(command, check=True, env=self.environment, cwd=self.home)

    def stop(self) -> None:
        """End the services."""
        for service in self.services:
            service.terminate()
        for service in self.services:
            service.wait(20)


def _seconds(*moments: str) -> tuple[float, float, float]:
    """Times of its table as seconds."""
    queued, began, ended = (datetime.fromisoformat(moment).timestamp() for moment in moments)
    return queued, began, ended


def _plain(value: Any) -> Any:
    """A value of an XCom row: JSON, which SQLite gives back as a number where it is one; tuples are wrapped."""
    value = json.loads(value) if isinstance(value, str) else value
    return value.get("__data__", value) if isinstance(value, dict) else value
