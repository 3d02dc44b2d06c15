"""Clients of a broker in another process."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

from headrace._core import connect_client, farewell_of
from headrace.embedded import OwnSession
from headrace.errors import BrokerLost, InfraError, UsageError
from headrace.failures import VERSION_MISMATCH, lost
from headrace.keys import keys_of_peer
from headrace.launch import libzmq_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.errors import HeadraceError
    from headrace.keys import PeerKeys

#: Seconds until there has to be a connection. To a broker that lives it takes milliseconds.
CONNECT_S = 10.0

_PORT = re.compile(r":[0-9]{1,5}$")

#: The socket of a broker in its directory.
SOCKET = "broker"


class Attached(OwnSession):
    """Speaks with the broker at an address."""

    def __init__(self, address: str | os.PathLike[str], keys: str | os.PathLike[str] | PeerKeys | None) -> None:
        endpoint = endpoint_of(address)
        own = keys_of_peer(keys, "client") if is_far(endpoint) else None
        super().__init__(connect_client(endpoint, libzmq_candidates(), CONNECT_S, own))
        try:
            state = self.core.query(0)
        except BaseException:
            self.stop()
            raise
        if state is None:
            self.stop()
            raise self._refusal(endpoint)
        #: How many workers there are now.
        self.workers = len(state[2])

    def _refusal(self, endpoint: str) -> HeadraceError:
        reason, text = farewell_of(self.core) or (None, "the connection was lost")
        if reason == VERSION_MISMATCH:
            return lost("", False, reason, text)
        if reason is None:
            return BrokerLost(f"{endpoint}: {text}")
        return InfraError(f"{endpoint}: {text}")


def check_options(address: object, given: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> None:
    """Refuse what is the broker's to know.

    Raises:
        UsageError: an option is not what it is by default.
    """
    defaults = defaults or {}
    chosen = {name for name, default in defaults.items() if given[name] is not default and given[name] != default}
    names = [name for name in defaults if name in chosen - {"keys"}]
    if names:
        raise UsageError(
            f"Client({str(address)!r}): {', '.join(names)} cannot be chosen here: the broker at that address has its "
            "own workers; give it to `headrace broker`"
        )


def is_far(endpoint: str) -> bool:
    """Say whether an endpoint is one of the network, which asks for keys."""
    return endpoint.startswith("tcp://")


def endpoint_of(address: str | os.PathLike[str]) -> str:
    """Give the endpoint of the broker that an address names.

    Args:
        address: "tcp://HOST:PORT"; or "ipc://PATH", or the path alone: of a broker's directory, or of the socket in it.

    Raises:
        UsageError: it is no such address, or others than this user could listen there.
        BrokerLost: nothing is there.
    """
    text = os.fspath(address) if isinstance(address, str | os.PathLike) else ""
    if is_far(text) and _PORT.search(text):
        return text
    path = text.removeprefix("ipc://")
    if not os.path.isabs(path):
        raise UsageError(
            f"{address!r} is no address of a broker; that is 'tcp://HOST:PORT', 'ipc:///…' or the path of its "
            "directory, as `headrace broker` says it"
        )
    if os.path.isdir(path):
        path = os.path.join(path, SOCKET)
    directory = os.path.dirname(path)
    try:
        status, kind = os.lstat(directory), os.lstat(path).st_mode
    except OSError as error:
        raise BrokerLost(f"no broker is at {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(kind):
        raise UsageError(f"{path} is no socket of a broker")
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(
            f"{directory} is not this user's own, or open to others (mode {stat.S_IMODE(status.st_mode):04o}): a "
            "broker's directory has mode 0700"
        )
    return f"ipc://{path}"
