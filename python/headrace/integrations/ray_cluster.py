"""headrace on the nodes of a Ray cluster: `with start() as cluster: client = cluster.client()`.

Each node has an actor in a placement group of its own, which starts an agent there. Ray ends the actor with this
program, and starts it anew where it dies; the agent ends with the actor.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import headrace
from headrace.integrations._placement import GIVE_UP_S, JOIN_S, PLACES, Cluster, Session, address_towards, logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.keys import PeerKeys

#: Seconds between two looks at Ray's nodes: it does not tell of new ones.
FOLLOW_S = 1.0

#: Seconds that the start waits for a first agent. Ray starts a process for its actor before.
FIRST_S = 60.0

#: Seconds that an actor gets to end its agent.
STOP_S = 10.0

#: Seconds before an agent that has crashed is started anew.
RESTART_S = 1.0

#: The label by which Ray knows a node.
NODE_LABEL = "ray.io/node-id"


def start(
    *,
    cpus: float | None = None,
    slots: int | None = None,
    preload: Sequence[str] = (),
    listen: str | None = None,
    advertise: str | None = None,
    places: int = PLACES,
) -> RayCluster:
    """Start headrace on the nodes of the Ray cluster that this program is connected to: an agent on each, and a broker.

    Args:
        cpus: how many of each node's are reserved; by default all that it has. A node with fewer is left out.
        slots: headrace's worker processes on each node; by default as many as CPUs are reserved there.
        preload: names of modules that each of them imports before its first task.
        listen: where the broker listens, in this process, as "tcp://HOST:PORT"; by default at the address by which
            Ray's nodes are reached.
        advertise: the same as agents are to call it, where that differs.
        places: how many worker processes there may be together.

    Returns:
        The cluster, once the first agent has joined. Its `client()` gives a `headrace.Client`. Nodes whose CPUs are
        taken, and nodes that come later, join when they can.

    Raises:
        UsageError: an argument is not usable, or there is no `ray.init()` yet.
        InfraError: no agent has joined; the error says why.

    Cost: as long as Ray takes to start an actor: a second or more.
    """
    if not ray.is_initialized():
        raise headrace.UsageError(
            "headrace runs on the Ray cluster that this program is connected to: ray.init() first"
        )
    if cpus is not None and not cpus >= 1:
        raise headrace.UsageError(f"cpus takes a number from 1 on, not {cpus!r}")
    return RayCluster(cpus, slots, tuple(preload), listen, advertise, places)


class RayCluster(Cluster):
    """headrace on a Ray cluster, as `start` gives it."""

    def __init__(
        self,
        cpus: float | None,
        slots: int | None,
        preload: tuple[str, ...],
        listen: str | None,
        advertise: str | None,
        places: int,
    ) -> None:
        self._cpus, self._slots, self._preload = cpus, slots, preload
        where = listen or f"tcp://{address_towards(node['NodeManagerAddress'] for node in _alive())}:*"
        self._session = Session(where, advertise, places)
        self._keys = self._session.keys
        self.address = self._session.broker.address
        self._crew: dict[str, _Post] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._follow, name="headrace-ray", daemon=True)
        try:
            self._settle()
            self._wait_for_first()
        except BaseException:
            self.close()
            raise
        self._watcher.start()

    def close(self) -> None:
        """End the broker and the agents, and take actors and placement groups away. Calling it again does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        with contextlib.suppress(Exception):  # Ray may have ended before
            joined = {post.joined: post.actor for post in self._crew.values()}
            there, _ = ray.wait(list(joined), num_returns=len(joined), timeout=0) if joined else ([], [])
            stopping = [joined[one].stop.remote() for one in there]
            if stopping:
                ray.wait(stopping, num_returns=len(stopping), timeout=STOP_S)
        for post in self._crew.values():
            _dismiss(post)
        self._session.stop()

    def _settle(self) -> None:
        """Have an actor on each node that has none, and none for nodes that are gone."""
        alive = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in _alive()}
        for node in self._crew.keys() - alive.keys():
            _dismiss(self._crew.pop(node))
        for node, cpus in alive.items():
            wanted = cpus if self._cpus is None else self._cpus
            if node not in self._crew and 1 <= wanted <= cpus:
                self._crew[node] = self._post(node, wanted)

    def _post(self, node: str, cpus: float) -> _Post:
        """Reserve a node's processors for an actor, which Ray starts once they are free."""
        group = placement_group([{"CPU": cpus}], bundle_label_selector=[{NODE_LABEL: node}])
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        companion = ray.remote(_Companion).options(num_cpus=cpus, scheduling_strategy=place, max_restarts=-1)
        slots = int(cpus) if self._slots is None else self._slots
        name = f"ray node {node[:12]}"
        actor = companion.remote(self._session.address, self._keys.worker, slots, name, self._preload)
        return _Post(actor, group, actor.wait_joined.remote())

    def _wait_for_first(self) -> None:
        waiting = [post.joined for post in self._crew.values()]
        if not waiting:
            raise headrace.InfraError("no node of the Ray cluster has as many CPUs as are asked for")
        joined, _ = ray.wait(waiting, num_returns=1, timeout=FIRST_S)
        if not joined:
            raise headrace.InfraError(f"Ray has started no actor within {FIRST_S:g} s: are all CPUs taken?")
        ray.get(joined[0])

    def _follow(self) -> None:
        while not self._over.wait(FOLLOW_S):
            try:
                self._settle()
            except Exception as error:  # Ray may be about to end
                logger.warning("Ray's nodes cannot be followed: %s", error)


class _Post(NamedTuple):
    """What there is on a node."""

    actor: Any
    group: Any
    joined: Any


class _Companion:
    """Has an agent on its node; an actor."""

    def __init__(self, address: str, keys: PeerKeys, slots: int, name: str, preload: tuple[str, ...]) -> None:
        self._address, self._keys, self._slots, self._name, self._preload = address, keys, slots, name, preload
        self._over = threading.Event()
        self._agent = self._start()
        threading.Thread(target=self._watch, name="headrace-agent", daemon=True).start()

    def wait_joined(self) -> None:
        self._agent.wait_joined(JOIN_S)

    def stop(self) -> None:
        self._over.set()
        self._agent.stop()

    def _start(self) -> headrace.AgentProcess:
        return headrace.AgentProcess(
            self._address,
            keys=self._keys,
            slots=self._slots,
            name=self._name,
            preload=self._preload,
            give_up_s=GIVE_UP_S,
        )

    def _watch(self) -> None:
        """Start another agent where one has ended by itself, unless it said that there is no use in that."""
        while self._agent.wait() not in (0, 3) and not self._over.wait(RESTART_S):
            self._agent = self._start()


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _dismiss(post: _Post) -> None:
    with contextlib.suppress(Exception):  # it may be gone already
        ray.kill(post.actor, no_restart=True)
    with contextlib.suppress(Exception):
        remove_placement_group(post.group)
