"""Temporal: its development server, and a worker of its Python SDK."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from headrace.bench.bodies import noop, sleep, spin, stamp
from headrace.bench.engine import Engine
from headrace.bench.engines.servers import find_program
from headrace.bench.plans import Plan

_START_S = 60
_QUEUE = "bench"


class TemporalEngine(Engine):
    """One workflow for a graph; its activities run in a pool of processes."""

    packages = ("temporalio",)

    def start(self) -> None:
        """Start the server, connect, start the worker."""
        from headrace.bench.engines import temporal_workflow

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        scratch = Path(os.environ["HEADRACE_BENCH_SCRATCH"])
        words = ["server", "start-dev", "--headless", "--port", str(self.port), "--log-level", "error"]
        program = find_program("temporal")
        assert program is not None
        self.server = subprocess.Popen([program, *words], cwd=scratch, env=os.environ | {"HOME": str(scratch)})
        self.parts = temporal_workflow
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"))
        self.runs = itertools.count()
        self._wait(self._connect())

    async def _connect(self) -> None:
        from temporalio.client import Client
        from temporalio.worker import SharedStateManager, UnsandboxedWorkflowRunner, Worker

        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.client = await Client.connect(f"127.0.0.1:{self.port}")
                break
            except RuntimeError:
                if self.server.poll() is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
        self.worker = Worker(
            self.client,
            task_queue=_QUEUE,
            workflows=[self.parts.Whole],
            activities=[self.parts.call],
            activity_executor=self.pool,
            max_concurrent_activities=self.workers,
            shared_state_manager=SharedStateManager.create_from_multiprocessing(multiprocessing.Manager()),
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        self.working = asyncio.create_task(self.worker.run())

    def refusal(self, plan: Plan) -> str:
        """Values are JSON in its history."""
        if plan.function not in (noop, spin, sleep, stamp):
            return "values are JSON of 2 MB at most, in the history of the workflow"
        return super().refusal(plan)

    def run(self, plan: Plan) -> list[Any]:
        """Execute the workflow."""
        name = f"run{next(self.runs)}"
        whole = self.client.execute_workflow(self.parts.Whole.run, str(plan.workload), id=name, task_queue=_QUEUE)
        return list(self._wait(whole))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self) -> None:
        """End the worker and the server."""
        self._wait(self.worker.shutdown())
        self.pool.shutdown()
        self.server.terminate()
        self.server.wait(20)
