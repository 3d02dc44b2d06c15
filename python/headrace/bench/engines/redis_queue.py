"""What task queues on Redis have in common here: graphlib drives, a message a task, results over a list in Redis.

A list that the driver blocks on is quicker than the result backends of these systems, which have to be asked.
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
from abc import abstractmethod
from pathlib import Path
from typing import Any

from headrace.bench.engine import Engine
from headrace.bench.plans import Plan
from headrace.bench.pool_drivers import Call, prepared_sorter

#: The environment variable that tells worker processes where Redis is.
SOCKET = "HEADRACE_BENCH_REDIS"
_RESULTS = "headrace-bench-results"
_WORKERS_UP_S = 60


class RedisQueue(Engine):
    """Redis, the system's own workers, and the driver."""

    def start(self) -> None:
        """Start Redis and the workers."""
        import redis

        from headrace.bench.engines.servers import start_redis

        self.server, path = start_redis(Path(os.environ["HEADRACE_BENCH_SCRATCH"]))
        os.environ[SOCKET] = path
        self.redis = redis.Redis(unix_socket_path=path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.command()], cwd=os.environ["HEADRACE_BENCH_SCRATCH"]
        )

    @abstractmethod
    def command(self) -> list[str]:
        """The words after `python -m` that start the workers."""

    @abstractmethod
    def send(self, message: str) -> None:
        """Give a message to the queue."""

    def run(self, plan: Plan) -> list[Any]:
        """Send what is ready, wait for any result, go on."""
        function = plan.function
        calls: Any = {number: Call(plan.function, needed, constants) for number, constants, needed in plan.calls()}
        sorter = prepared_sorter(calls)
        values: dict[Any, Any] = {}
        while sorter.is_active():
            for number in sorter.get_ready():
                call = calls[number]
                inputs = [values[before] for before in call.predecessors]
                packed = pickle.dumps((number, function, (*call.constants, *inputs)), protocol=5)
                self.send(base64.b64encode(packed).decode())
            answer = self.redis.blpop([_RESULTS], timeout=_WORKERS_UP_S)
            if answer is None:
                raise TimeoutError(f"no result within {_WORKERS_UP_S} s")
            number, value = pickle.loads(answer[1])
            values[number] = value
            sorter.done(number)
        return [values[number] for number in plan.kept]

    def stop(self) -> None:
        """End the workers and Redis."""
        for process in (self.process, self.server):
            process.terminate()
            process.wait(20)


def execute(redis: Any, message: str) -> None:
    """In a worker: run a message, and tell the driver."""
    number, function, arguments = pickle.loads(base64.b64decode(message))
    redis.rpush(_RESULTS, pickle.dumps((number, function(*arguments)), protocol=5))
