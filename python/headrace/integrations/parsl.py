"""Parsl on headrace: `Config(executors=[HeadraceExecutor()])`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parsl.executors.base import ParslExecutor
from parsl.executors.errors import InvalidResourceSpecification
from parsl.monitoring.radios.multiprocessing import MultiprocessingQueueRadio
from parsl.utils import RepresentationMixin

import headrace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from typing import Literal

    Mode = Literal["processes", "threads"]

#: What a resource specification may ask for: options of tasks by the same names.
OPTIONS = frozenset({"priority", "resources", "tags", "timeout_s"})


class HeadraceExecutor(ParslExecutor, RepresentationMixin):  # type: ignore[misc]
    """Runs apps in worker processes of this machine, or on threads.

    Args:
        label: how apps name it, by `executors=[label]`.
        max_workers: how many processes or threads; by default as many as there are cores.
        mode: "processes" or "threads".
        storage_access: Parsl's staging of files.
        working_dir: directory for staged files.

    A `parsl_resource_specification` may have `priority`, `resources`, `tags` and `timeout_s`, as options of tasks. What
    ends its worker fails with `WorkerDied`, and is tried again by `Config(retries=…)`.

    Source: `parsl.executors.base.ParslExecutor`, Parsl 2026.10.
    """

    def __init__(
        self,
        label: str = "headrace",
        max_workers: int | None = None,
        mode: Mode = "processes",
        storage_access: Sequence[Any] | None = None,
        working_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.label = label
        self.max_workers = max_workers
        self.mode = mode
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.remote_monitoring_radio = MultiprocessingQueueRadio()

    def start(self) -> None:
        """Start the workers."""
        self._executor = headrace.Executor(self.max_workers, mode=self.mode)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Start an app that is ready.

        Raises:
            InvalidResourceSpecification: it asks for what is no option of tasks.
        """
        if unknown := set(resource_specification) - OPTIONS:
            raise InvalidResourceSpecification(unknown, f"headrace knows {', '.join(sorted(OPTIONS))}")
        fn = headrace.task(func, **resource_specification) if resource_specification else func
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self) -> None:
        """Wait for what was started, and end the workers."""
        self._executor.shutdown()
        super().shutdown()

    def monitor_resources(self) -> bool:
        """Say whether Parsl may watch the processes of apps: not where they are its own."""
        return self.mode == "processes"
