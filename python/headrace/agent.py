"""The agent of a machine: lends its processors to a broker elsewhere. `headrace worker` runs one."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from headrace._core import Agent
from headrace.attached import endpoint_of, is_far
from headrace.errors import InfraError, UsageError
from headrace.keys import keys_of_peer
from headrace.launch import prepare
from headrace.limits import default_store_limit
from headrace.resources import of_machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from headrace.keys import PeerKeys


class MachineAgent:
    """Worker processes of this machine for a broker.

    Args:
        address: of the broker: "tcp://HOST:PORT", or one on this machine.
        slots: how many worker processes; by default one for each core.
        name: what people call this machine; by default its host name.
        resources: how much there is of what tasks ask for by their option `resources`, for the workers here. Memory is
            this machine's unless it is given.
        keys: the key of a worker, its file, or its directory; by default as for `Client`.
        preload: names of modules that each worker imports before its first task.

    Raises:
        UsageError: an argument is not usable.
    """

    def __init__(
        self,
        address: str,
        *,
        slots: int | None = None,
        name: str | None = None,
        resources: Mapping[str, int | str] | None = None,
        keys: str | PeerKeys | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self.slots = len(os.sched_getaffinity(0)) if slots is None else slots
        if not 1 <= self.slots <= SLOTS_MAX:
            raise UsageError(f"--slots takes a number from 1 to {SLOTS_MAX:,}, not {slots}")
        endpoint = endpoint_of(address)
        own = keys_of_peer(keys, "worker") if is_far(endpoint) else None
        launch = prepare(preload, None, None, keys=own)
        self._agent = Agent(
            endpoint=endpoint,
            keys=own,
            libzmq=launch.libzmq,
            slots=self.slots,
            store_limit=default_store_limit(),
            name=platform.node() if name is None else name,
            resources=of_machine(resources),
            program=launch.program,
            arguments=launch.arguments,
            environment=launch.environment,
            boot=launch.boot,
        )
        self._seen = (0, False)

    def __enter__(self) -> MachineAgent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._agent.stop()

    def drain(self) -> None:
        """Leave once the workers have ended what they run; they are given nothing more. `wait` says "over" then."""
        self._agent.drain()

    def wait(self, timeout_s: float) -> str | None:
        """Wait until there is something to tell; None if the time is over before.

        Returns:
            "joined", "lost" or "over": the broker has ended or let this go, and it has ended.

        Raises:
            InfraError: the broker does not want this machine.
        """
        joined, is_up, is_over, why = self._agent.wait(*self._seen, timeout_s)
        if why is not None:
            raise InfraError(why)
        if is_over:
            return "over"
        if (joined, is_up) == self._seen:
            return None
        self._seen = (joined, is_up)
        return "joined" if is_up else "lost"


#: More than any machine has cores.
SLOTS_MAX = 4_096
