"""A broker of its own, which its clients come to and leave. `headrace broker` runs one as a program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headrace._core import drain_broker, farewell_of, wait_over
from headrace.embedded import Embedded
from headrace.engines import checked_extra, checked_workers
from headrace.errors import InfraError, UsageError
from headrace.failures import WORKERS_FAILED
from headrace.keys import keys_of_broker
from headrace.launch import prepare
from headrace.limits import checked_bytes, checked_lives, default_store_limit
from headrace.resources import offered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from headrace.keys import BrokerKeys
    from headrace.output import Log


class Broker:
    """A broker with its workers, on a native thread of this process, for clients of other processes.

    Args:
        workers: as for `Client`, like everything else here.
        extra_workers: likewise.
        preload: likewise.
        store_limit: likewise; bytes of results in the memory of this process beyond which tasks without inputs wait.
        crash_limit: likewise.
        oom_limit: likewise.
        max_tasks_per_worker: likewise.
        resources: likewise.
        limits: likewise.
        grace_s: likewise.
        listen: where to listen beyond this machine, as "tcp://HOST:PORT"; an address of this machine, or 0.0.0.0.
        keys: the directory with the broker's keys and its list of those who may come in, or `SessionKeys().broker`.
        places: how many workers of other machines there may be at a time. With some, `workers` may be 0.
        log: what takes the lines that the broker and nobody's tasks write, in place of this process's streams: a
            function of the worker's number (None for the broker), the name of the stream and the text. It is called on
            a thread of its own.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        extra_workers: int | None = None,
        preload: Sequence[str] = (),
        store_limit: int | None = None,
        crash_limit: int = 3,
        oom_limit: int = 1,
        max_tasks_per_worker: int | None = None,
        resources: Mapping[str, int | str] | None = None,
        limits: Mapping[str, int] | None = None,
        grace_s: float = 3.0,
        listen: str | None = None,
        keys: str | BrokerKeys | None = None,
        places: int = 64,
        log: Log | None = None,
    ) -> None:
        self.workers = 0 if workers == 0 and places > 0 else checked_workers(workers)
        spares = checked_extra(extra_workers, self.workers, "processes")
        lives = checked_lives(crash_limit, oom_limit, max_tasks_per_worker, grace_s)
        offer, environments = offered(
            resources,
            limits,
            workers=self.workers,
            spares=spares,
            processes=True,
            env=None,
            machines=places > 0,
            grows=places > 0 and listen is not None,
        )
        limit = default_store_limit() if store_limit is None else checked_bytes("store_limit", store_limit)
        launch = prepare(preload, None, None)
        network = None if listen is None else (checked_listen(listen), *keys_of_broker(keys))
        place = ("", 0)
        self._engine = Embedded(
            self.workers, spares, launch, limit, place, lives, offer, environments, True, network, places, log
        )
        #: Where those elsewhere find it, who have a key; None unless it was told to listen.
        self.endpoint: str | None
        directory, self.endpoint = self._engine.core.listens_at
        #: Where clients on this machine find it.
        self.address = f"ipc://{directory}"

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it at once, with all its workers, whatever still runs. Calling it again does nothing."""
        self._engine.stop()

    def drain(self) -> None:
        """Take no more clients, and end once nothing is left to run."""
        drain_broker(self._engine.core)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the broker has ended; False if the time is over before.

        Raises:
            InfraError: its workers could not be started.
        """
        if not wait_over(self._engine.core, timeout_s):
            return False
        reason, text = farewell_of(self._engine.core) or (None, "")
        if reason == WORKERS_FAILED:
            raise InfraError(text)
        return True


def checked_listen(listen: str) -> str:
    """Give the endpoint to bind.

    Raises:
        UsageError: it is none of the network.
    """
    if not re.fullmatch(r"tcp://[^/]+:([0-9]{1,5}|\*)", listen):
        raise UsageError(f"--listen takes tcp://HOST:PORT, such as tcp://0.0.0.0:8786, not {listen!r}")
    return listen
