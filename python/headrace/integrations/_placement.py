"""What adapters to clusters share: a broker for a session, and the way to it."""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING

import headrace
from headrace.adaptive import Follower, Load, load_of
from headrace.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

#: Workers that there may be on all machines together.
PLACES = 1_024

#: Seconds in which an agent has to have joined, before whoever waits for it is told that it cannot.
JOIN_S = 10.0

#: Seconds without its broker after which an agent ends: what started it may not know that the session is over.
GIVE_UP_S = 300.0

logger = logging.getLogger("headrace.cluster")


class Session:
    """A broker for one session on somebody's cluster, in this process, and the keys of those who may use it.

    Args:
        listen: where it listens, as "tcp://HOST:PORT".
        advertise: the same as agents are to call it; by default as it listens.
        places: how many workers there may be.
        keys: who may come in; made for the session unless they are given.
    """

    def __init__(
        self,
        listen: str,
        advertise: str | None = None,
        places: int = PLACES,
        keys: headrace.SessionKeys | None = None,
    ) -> None:
        self.keys = headrace.SessionKeys() if keys is None else keys
        self.broker = headrace.Broker(workers=0, places=places, listen=listen, keys=self.keys.broker, log=_note)
        #: Where agents find it.
        self.address: str = advertise or str(self.broker.endpoint)

    def stop(self) -> None:
        """End it, and with it the agents."""
        self.broker.stop()


class Cluster:
    """headrace on the machines of a cluster that another engine runs: a context manager that ends it.

    Tasks run in worker processes that agents on those machines have started.
    """

    #: Where clients find the broker.
    address: str
    _keys: headrace.SessionKeys
    _follower: Follower | None = None

    def client(self) -> headrace.Client:
        """Open a client of it, for this process. Each has its own runs; any number may be open."""
        return headrace.Client(self.address, keys=self._keys.client)

    def wait_for_workers(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many workers are up.

        Raises:
            TimeoutError: the time is over before.
        """
        until_s = time.monotonic() + timeout_s
        with self.client() as client:
            while (up := sum(1 for worker in client.statistics().workers if worker.pid)) < count:
                if time.monotonic() >= until_s:
                    raise TimeoutError(
                        f"{up} of {count} workers are up after {timeout_s:g} s: can the machines reach {self.address}, "
                        "and do their logs say why not?"
                    )
                time.sleep(0.01)

    def adapt(self, decide: Callable[[Load], int], every_s: float = 1.0) -> None:
        """Have the engine give more workers, or take some back, as work comes and goes.

        Args:
            decide: of the load (tasks by state, workers, mean seconds of a task) it gives how many workers there should
                be; `headrace.adaptive.by_backlog(minimum, maximum)` makes such a rule.
            every_s: seconds between two looks.

        A machine that is taken back ends what it runs, and what only it has goes to the broker first.

        Raises:
            UsageError: this engine cannot be asked.
        """
        self._check_scales()
        self.stop_adapting()
        place = self.address.removeprefix("ipc://")
        own = self._keys.client if place == self.address else None  # on this machine there is no need for a key

        def look() -> Load | None:
            with Observer(place, own) as observer:
                seen = observer.look()
            return load_of(seen[0].state) if seen and seen[0].state is not None else None

        self._follower = Follower(look, decide, self._scale, every_s, logger.warning)

    def stop_adapting(self) -> None:
        """Leave the number of workers as it is."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop()

    def _check_scales(self) -> None:
        raise headrace.UsageError(f"{type(self).__name__} cannot ask for more or fewer workers")

    def _scale(self, workers: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the broker and its agents, and leave nothing on the cluster. Calling it again does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def address_towards(hosts: Iterable[str]) -> str:
    """Give the address of this machine by which others can reach it.

    Args:
        hosts: addresses of machines that it talks to. Those that are not this machine's own count first.
    """
    ordered = sorted(hosts, key=lambda host: (host.startswith("127.") or host in ("localhost", "::1"), host))
    host = ordered[0] if ordered else "127.0.0.1"
    family, _, _, _, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing
        own: str = probe.getsockname()[0]
    return f"[{own}]" if ":" in own else own


def _note(worker: int | None, _stream: str, text: str) -> None:
    for line in text.splitlines():
        logger.info("%s", line if worker is None else f"worker {worker}: {line}")
