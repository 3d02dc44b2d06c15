"""Dramatiq on Redis."""

from __future__ import annotations

from headrace.bench.engines.redis_queue import RedisQueue


class DramatiqEngine(RedisQueue):
    """Worker processes of one thread."""

    packages = ("dramatiq", "redis")

    def command(self) -> list[str]:
        """Its own program."""
        return ["dramatiq", "headrace.bench.engines.dramatiq_tasks", "-p", str(self.workers), "-t", "1"]

    def send(self, message: str) -> None:
        """Send a message."""
        from headrace.bench.engines.dramatiq_tasks import run

        run.send(message)
