"""The clients that joblib's backends run on, which stay for the next one."""

from __future__ import annotations

import atexit
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import headrace

if TYPE_CHECKING:
    from headrace.integrations.joblib import Mode


class Clients:
    """The clients of this process that backends share, by what is wanted of them, each with how many use it now.

    One that nobody uses stays for the next `Parallel` that wants the same, until another one is wanted.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: What was wanted, which may have no hash; the client; and its users.
        self._clients: list[tuple[Any, headrace.Client, list[object]]] = []

    def take(
        self, user: object, workers: int, mode: Mode, env: dict[str, str], first: tuple[Any, ...]
    ) -> headrace.Client:
        """Give the client with such workers; to be given back."""
        wanted = (os.getpid(), workers, mode, tuple(sorted(env.items())), first)
        with self.lock:
            found = next((known for known in self._clients if known[0] == wanted), None)
            if found is None:
                for idle in [known for known in self._clients if not known[2]]:
                    self._clients.remove(idle)
                    idle[1].close(wait=False)
                initializer, initargs = first
                setup = None if initializer is None else partial(initializer, *initargs)
                client = headrace.Client(workers=workers, mode=mode, env=env, setup=setup)
                found = wanted, client, []
                self._clients.append(found)
            found[2].append(user)
            return found[1]

    def give_back(self, user: object) -> None:
        """Use a client no more."""
        with self.lock:
            for _, _, users in self._clients:
                if user in users:
                    users.remove(user)

    def close(self) -> None:
        """End all of them."""
        with self.lock:
            clients, self._clients = self._clients, []
        for _, client, _ in clients:
            client.close(wait=False, cancel=True)


clients = Clients()
atexit.register(clients.close)
os.register_at_fork(after_in_child=clients.lock._at_fork_reinit)  # type: ignore[attr-defined]
