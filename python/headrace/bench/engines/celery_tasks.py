"""The Celery application: its workers import this module."""

from __future__ import annotations

import os

import celery
import redis

from headrace.bench.engines.redis_queue import SOCKET, execute

app = celery.Celery("bench", broker=f"redis+socket://{os.environ[SOCKET]}")
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
_redis = redis.Redis(unix_socket_path=os.environ[SOCKET])


@app.task  # type: ignore[untyped-decorator]
def run(message: str) -> None:
    """Run one task of a plan."""
    execute(_redis, message)
