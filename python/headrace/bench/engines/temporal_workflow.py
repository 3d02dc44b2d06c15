"""The workflow and the activity: its worker imports this module, and so do the processes of the pool."""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from headrace.bench.plans import Plan, parse

_TASK_S = timedelta(seconds=100)


@functools.lru_cache(4)
def _plan(text: str) -> Plan:
    return Plan(parse(text))


@activity.defn  # type: ignore[untyped-decorator]
def call(text: str, number: int, inputs: list[Any]) -> Any:
    """Run one task."""
    plan = _plan(text)
    return plan.function(*plan.constants(number), *inputs)


@workflow.defn(sandboxed=False)
class Whole:
    """A graph."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, text: str) -> list[Any]:
        """Each task waits for its inputs, and is an activity then."""
        plan = _plan(text)
        done: list[asyncio.Task[Any]] = []

        async def one(number: int, needed: tuple[int, ...]) -> Any:
            inputs = [await done[before] for before in needed]
            return await workflow.execute_activity(call, args=[text, number, inputs], start_to_close_timeout=_TASK_S)

        for number, _constants, needed in plan.calls():
            done.append(asyncio.create_task(one(number, needed)))
        return [await done[number] for number in plan.kept]
