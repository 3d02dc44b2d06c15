"""headrace on the workers of a Dask cluster: `with start(dask_client) as cluster: client = cluster.client()`.

Each Dask worker has a plugin that starts an agent beside it, which ends with it; Dask gives the plugin to workers that
come later, too. A plugin of the scheduler sees to it that both are gone once the Dask client is that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import uuid
from typing import TYPE_CHECKING, Any, Literal

from distributed.comm import get_address_host
from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

import headrace
from headrace.integrations._placement import GIVE_UP_S, JOIN_S, PLACES, Cluster, Session, address_towards, logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client, Scheduler, Worker

    from headrace.keys import PeerKeys

#: Seconds in which a Dask client that has lost its scheduler may come back before the session ends without it.
RETURN_S = 5.0

#: Seconds before an agent that has crashed is started anew.
RESTART_S = 1.0


def start(
    client: Client,
    *,
    slots: int | None = None,
    preload: Sequence[str] = (),
    broker: Literal["client", "scheduler"] = "client",
    listen: str | None = None,
    advertise: str | None = None,
    places: int = PLACES,
    drain_s: float = 10.0,
) -> DaskCluster:
    """Start headrace on the workers of a Dask cluster: an agent on each, and a broker.

    Args:
        client: of the Dask cluster; its end is the session's.
        slots: headrace's worker processes beside each Dask worker; by default as many as that has threads.
        preload: names of modules that each of them imports before its first task.
        broker: where the broker runs: in this process, or in that of the scheduler, if workers cannot reach this one.
        listen: where it listens, as "tcp://HOST:PORT"; by default at the address by which the others are reached.
        advertise: the same as agents are to call it, where that differs.
        places: how many worker processes there may be together.
        drain_s: seconds that an agent may go on with what it runs when its Dask worker is told to leave.

    Returns:
        The cluster, once the agents of all Dask workers have joined. Its `client()` gives a `headrace.Client`.

    Raises:
        UsageError: an argument is not usable.
        InfraError: an agent cannot join; its error says why.

    Cost: some 300 ms.
    """
    if client.asynchronous:
        raise headrace.UsageError("start() waits, so it takes a Dask client that is not asynchronous")
    if broker not in ("client", "scheduler"):
        raise headrace.UsageError(f"broker is 'client' or 'scheduler', not {broker!r}")
    companion = _Companion(slots, tuple(preload), drain_s)
    return DaskCluster(client, companion, broker == "scheduler", listen, advertise, places)


class DaskCluster(Cluster):
    """headrace on a Dask cluster, as `start` gives it."""

    def __init__(
        self,
        client: Client,
        companion: _Companion,
        is_central: bool,
        listen: str | None,
        advertise: str | None,
        places: int,
    ) -> None:
        self._dask = client
        self._companion = companion
        self._name = f"headrace-{uuid.uuid4().hex[:12]}"
        self._keys = headrace.SessionKeys()
        self._session: Session | None = None
        self._is_central = is_central
        self._is_open = True
        try:
            if is_central:
                chief = _Chief(self._name, client.id, (listen, advertise, places, self._keys))
                client.register_plugin(chief)
                self.address = agents_at = client.run_on_scheduler(_address_of, self._name)
            else:
                client.register_plugin(_Chief(self._name, client.id, None))
                where = listen or f"tcp://{address_towards(_hosts(client))}:*"
                self._session = Session(where, advertise, places, self._keys)
                self.address, agents_at = self._session.broker.address, self._session.address
            companion.serve(self._name, agents_at, self._keys.worker)
            client.register_plugin(companion)
        except BaseException:
            self.close()
            raise

    def _check_scales(self) -> None:
        if not hasattr(self._dask.cluster, "scale"):
            raise headrace.UsageError(
                "this Dask client knows no cluster that can be scaled: make it by Client(cluster), not with an address"
            )

    def _scale(self, workers: int) -> None:
        threads = [worker["nthreads"] for worker in self._dask.scheduler_info(n_workers=-1)["workers"].values()]
        each = self._companion.slots or max(threads, default=1)
        self._dask.cluster.scale(math.ceil(workers / each))

    def close(self) -> None:
        """End the broker and the agents, and take the plugins away. Calling it again does nothing."""
        self.stop_adapting()
        if not self._is_open:
            return
        self._is_open = False
        dask = self._dask
        steps = [dask.unregister_worker_plugin, dask.unregister_scheduler_plugin]
        if self._is_central:
            steps.insert(1, lambda name: dask.run_on_scheduler(_end_central, name))
        for step in steps:
            # What was not begun cannot be ended; and a Dask client that is closed leaves all to the scheduler's plugin.
            with contextlib.suppress(Exception):
                step(self._name)
        if self._session is not None:
            self._session.stop()


class _Companion(WorkerPlugin):  # type: ignore[misc]
    """Has an agent beside its Dask worker."""

    name: str
    _address: str
    _keys: PeerKeys

    def __init__(self, slots: int | None, preload: tuple[str, ...], drain_s: float) -> None:
        #: How many workers each agent has; None for as many as its Dask worker has threads.
        self.slots = slots
        self._preload, self._drain_s = preload, drain_s
        self._agent: headrace.AgentProcess | None = None
        self._watch: int | None = None

    def serve(self, name: str, address: str, keys: PeerKeys) -> None:
        """Do so for this broker, under this name."""
        self.name, self._address, self._keys = name, address, keys

    async def setup(self, worker: Worker) -> None:
        """Start the agent, and wait until it has joined."""
        agent = self._start(worker)
        try:
            await asyncio.to_thread(agent.wait_joined, JOIN_S)
        except TimeoutError:
            raise headrace.InfraError(
                f"Dask worker {worker.name} has not reached headrace's broker at {self._address} within {JOIN_S:g} s: "
                "start(listen=…, advertise=…) say where it is, start(broker='scheduler') puts it beside the scheduler"
            ) from None

    async def teardown(self, worker: Worker) -> None:
        """End the agent; if the Dask worker leaves, and not the session, in order."""
        agent, self._agent = self._agent, None
        if agent is not None:
            self._unwatch()
            if self._drain_s > 0 and worker.status in (Status.closing, Status.closing_gracefully):
                agent.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.to_thread(agent.wait, self._drain_s)
            await asyncio.to_thread(agent.stop)

    def _start(self, worker: Worker) -> headrace.AgentProcess:
        slots = worker.state.nthreads if self.slots is None else self.slots
        name = f"dask worker {worker.name}"
        more: dict[str, Any] = {"preload": self._preload, "give_up_s": GIVE_UP_S}
        agent = headrace.AgentProcess(self._address, keys=self._keys, slots=slots, name=name, **more)
        self._agent, self._watch = agent, os.pidfd_open(agent.pid)
        asyncio.get_running_loop().add_reader(self._watch, self._note_end, worker)
        return agent

    def _unwatch(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
            self._watch = None

    def _note_end(self, worker: Worker) -> None:
        """The agent has ended by itself: another takes its place, unless it said that there is no use in that."""
        self._unwatch()
        agent, self._agent = self._agent, None
        if agent is None:
            return
        code = agent.wait()
        agent.stop()
        if code not in _FINAL:
            logger.warning(
                "the agent beside Dask worker %s has ended with code %d; another is started", worker.name, code
            )
            asyncio.get_running_loop().call_later(RESTART_S, self._start_again, worker)

    def _start_again(self, worker: Worker) -> None:
        if self._agent is None and worker.plugins.get(self.name) is self:
            self._start(worker)


#: Exit codes of an agent that no other could do better: the broker has ended, or does not want it.
_FINAL = (0, 3)


class _Chief(SchedulerPlugin):  # type: ignore[misc]
    """Ends the session when the Dask client is gone that started it; has the broker, if that is to be here."""

    def __init__(
        self,
        name: str,
        client: str,
        central: tuple[str | None, str | None, int, headrace.SessionKeys] | None,
    ) -> None:
        self.name = name
        self._client = client
        self._central = central
        self._session: Session | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Start the broker."""
        if self._central is not None:
            listen, advertise, places, keys = self._central
            where = listen or f"tcp://{get_address_host(scheduler.address)}:*"
            self._session = await asyncio.to_thread(Session, where, advertise, places, keys)

    @property
    def address(self) -> str:
        """Where the broker is."""
        assert self._session is not None
        return self._session.address

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A Dask client is gone."""
        if client == self._client:
            scheduler.loop.call_later(RETURN_S, self._end_without, scheduler)

    async def _end_without(self, scheduler: Scheduler) -> None:
        if self._client in scheduler.clients or scheduler.plugins.get(self.name) is not self:
            return
        scheduler.remove_plugin(self.name)
        with contextlib.suppress(ValueError):  # there is none yet
            await scheduler.unregister_worker_plugin(None, self.name)
        await self.close()

    async def close(self) -> None:
        """End the broker."""
        session, self._session = self._session, None
        if session is not None:
            await asyncio.to_thread(session.stop)


def _address_of(name: str, dask_scheduler: Scheduler) -> str:
    address: str = dask_scheduler.plugins[name].address
    return address


async def _end_central(name: str, dask_scheduler: Scheduler) -> None:
    await dask_scheduler.plugins[name].close()


def _hosts(client: Client) -> list[str]:
    """Where the machines of a Dask cluster are."""
    known = client.scheduler_info(n_workers=-1)
    addresses = [known["address"], *known["workers"]]
    return [get_address_host(address) for address in addresses if "://" in address and not address.startswith("inproc")]
