"""Where a task is and what it waits for, in the modes "threads" and "sync": the same words as a broker's."""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from headrace.why import why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace._core import Kernel
    from headrace.local_tasks import Attempt
    from headrace.why import Parts, Why

#: What the kernel puts in the place of a key: the slot.
_SLOT = re.compile("\0([0-9]+)\0")


def explain(
    kernel: Kernel,
    slot: int,
    *,
    key: Callable[[int], str],
    running: Iterable[Attempt],
    workers: int,
    failures: int,
    pause_s: float | None,
    stacks: bool,
) -> Why:
    """Tell where a task is.

    Args:
        kernel: that knows it.
        slot: its number there.
        key: gives the key of a task by its number.
        running: the attempts that run.
        workers: how many run tasks, or stand in for those who do.
        failures: its failed attempts.
        pause_s: seconds until its next attempt, if it pauses.
        stacks: whether those of the thread that runs it are wanted.
    """
    now_s = time.monotonic()
    running_ms = [0] * workers
    mine: Attempt | None = None
    for attempt in running:
        running_ms[attempt.worker] = round((now_s - attempt.started_s) * 1_000)
        mine = attempt if attempt.slot == slot else mine
    pause_ms = None if pause_s is None else round(pause_s * 1_000)
    place, worker, number, since_ms, text = kernel.why(slot, running_ms, failures, pause_ms)
    text = _SLOT.sub(lambda found: key(int(found[1])), text)
    told = _stack(mine) if stacks else ""
    parts: Parts = place, worker, 0, number, since_ms, text, told
    return why(key(slot), parts)


def _stack(attempt: Attempt | None) -> str:
    """Give the stack of the thread that runs an attempt."""
    frame = None if attempt is None else sys._current_frames().get(attempt.thread)
    if attempt is None or frame is None:
        return "it does not run, so there are no stacks of it"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = "".join(traceback.format_stack(frame))
    return f"Thread {names.get(attempt.thread, attempt.thread)} (most recent call last):\n{lines}"
