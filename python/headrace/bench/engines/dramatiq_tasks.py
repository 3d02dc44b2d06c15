"""The Dramatiq actor: its workers import this module."""

from __future__ import annotations

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from headrace.bench.engines.redis_queue import SOCKET, execute

dramatiq.set_broker(RedisBroker(url=f"unix://{os.environ[SOCKET]}"))
_redis = redis.Redis(unix_socket_path=os.environ[SOCKET])


@dramatiq.actor(max_retries=0)  # type: ignore[untyped-decorator]
def run(message: str) -> None:
    """Run one task of a plan."""
    execute(_redis, message)
