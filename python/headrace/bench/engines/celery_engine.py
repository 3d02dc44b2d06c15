"""Celery on Redis."""

from __future__ import annotations

from headrace.bench.engines.redis_queue import RedisQueue


class CeleryEngine(RedisQueue):
    """Prefork workers."""

    packages = ("celery", "redis")

    def command(self) -> list[str]:
        """Without gossip, heartbeats and events, as its guide to speed says."""
        return [
            *("celery", "-A", "headrace.bench.engines.celery_tasks", "worker", "-l", "ERROR", "-c", str(self.workers)),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]

    def send(self, message: str) -> None:
        """Send a task."""
        from headrace.bench.engines.celery_tasks import run

        run.delay(message)
