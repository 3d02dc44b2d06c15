"""What an engine is to the benchmark. Each has a module in `engines/`, which imports its system when it starts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, ClassVar

from headrace.bench.plans import Plan

#: The environment variable that tells a calibrated model how many seconds a task takes to begin, and to run.
CALIBRATION = "HEADRACE_BENCH_CALIBRATION"


class Engine(ABC):
    """One system that runs plans, in the process that was made for it.

    Args:
        workers: how many processes, or threads, run tasks.
        **options: what tells apart the engines that share a class.
    """

    #: Distributions whose versions say what was measured.
    packages: ClassVar[tuple[str, ...]] = ()
    #: Whether it can be told which worker runs a task.
    can_pin: bool = False
    #: Whether its client can put a value where workers find it.
    can_put: bool = False

    def __init__(self, workers: int, **options: Any) -> None:
        self.workers = workers
        self.options = options
        #: When the whole graph was in the engine's hands; None where the driver hands over tasks as they become ready.
        self.submitted_ns: int | None = None
        #: How long the last run took, where the system's own records tell it better than a clock around it.
        self.elapsed_s: float | None = None
        #: When each task of the last run was queued, began and ended, in seconds of the system's own records.
        self.own_times: dict[int, tuple[float, float, float]] = {}

    @abstractmethod
    def start(self) -> None:
        """Start the system; its workers may still be coming up."""

    def prepare(self, plan: Plan) -> None:  # noqa: B027  (most do nothing)
        """Do what a system does once for a graph, before it runs any number of times. Not timed."""

    @abstractmethod
    def run(self, plan: Plan) -> list[Any]:
        """Run a plan from nothing: the engine's own form of the graph is made here, and timed.

        Returns:
            The results of `plan.kept`, in that order.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the system and all of its processes."""

    def refusal(self, plan: Plan) -> str:
        """Why this engine cannot run such a plan; empty if it can."""
        if plan.is_large and find_spec("numpy") is None:
            return "payloads need numpy: pip install numpy"
        if plan.workload.is_pinned and not self.can_pin:
            return "does not let say which worker runs a task"
        if plan.workload.shape == "put" and not self.can_put:
            return "has no store into which a client can put a value"
        return ""

    def put(self, value: Any) -> Any:
        """Put a value where workers find it, and give what stands for it."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """What was measured."""
        from importlib.metadata import version

        return {package: version(package) for package in self.packages}

    def submitted(self) -> None:
        """Note that the whole graph is in the engine's hands."""
        self.submitted_ns = time.monotonic_ns()
