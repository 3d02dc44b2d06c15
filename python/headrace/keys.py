"""Key files: who may use a broker over the network, and as what.

A broker has a key pair, and each peer has one. The broker's list of allowed public keys says what each may be. Whoever
can read a client's or a worker's key file can run code on the machines of the workers.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from headrace.errors import UsageError

#: What a peer may be. A client may also look at the state of the broker.
ROLES = ("client", "worker", "observer")

#: What the key of a client may be used for.
CLIENT_ROLES = "client,observer"

#: Names another directory than the usual one.
VARIABLE = "HEADRACE_KEYS"

BROKER, ALLOWED = "broker.key", "allowed"

#: Digits of a key in Z85.
_KEY_DIGITS = 40


class PeerKeys(NamedTuple):
    """What a peer needs."""

    public: str
    secret: str
    broker: str
    """The broker's public key."""

    def __repr__(self) -> str:
        return f"<PeerKeys: public {self.public}>"

    def text(self) -> str:
        """Give them as they stand in a key file."""
        return _lines(self._asdict())


class BrokerKeys(NamedTuple):
    """What a broker needs."""

    public: str
    secret: str
    allowed: list[tuple[str, str]]
    """Public keys with their roles, separated by commas."""

    def __repr__(self) -> str:
        return f"<BrokerKeys: public {self.public}, {len(self.allowed)} peers>"


class SessionKeys:
    """Keys for one session, in memory alone: for a broker that this program starts, and for those who are to use it.

    Each part says in its repr what is public. Whoever gets the part of a client or worker can run code on the machines
    of the workers.
    """

    def __init__(self) -> None:
        (public, secret), client, worker = _pair(), _pair(), _pair()
        #: For `Broker(keys=…)`.
        self.broker = BrokerKeys(public, secret, [(client[0], CLIENT_ROLES), (worker[0], "worker")])
        #: For `Client(address, keys=…)`.
        self.client = PeerKeys(*client, public)
        #: For `AgentProcess(address, keys=…)`.
        self.worker = PeerKeys(*worker, public)


def usual_directory() -> str:
    """Give the directory of keys that is used where none is named."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.environ.get(VARIABLE) or os.path.join(config, "headrace")


def make_all(directory: str) -> list[str]:
    """Make the keys of a broker, and one key for each role.

    Returns:
        The files, which only this user may read.

    Raises:
        UsageError: there are keys already.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    public, secret = _pair()
    _write(os.path.join(directory, BROKER), {"public": public, "secret": secret}, "the broker's own key: keep it there")
    _append(os.path.join(directory, ALLOWED), "# who may use this broker: roles, public key, name; read at its start\n")
    return [BROKER, *(make_one(directory, role, role) for role in ROLES), ALLOWED]


def make_one(directory: str, role: str, name: str) -> str:
    """Make a key for a further peer, and put it on the broker's list.

    Raises:
        UsageError: there are no keys of a broker, or there is a key of that name.
    """
    if not name.isidentifier() and not name.replace("-", "_").isidentifier():
        raise UsageError(f"{name!r} cannot be the name of a key: letters, digits and hyphens will do")
    own = os.path.join(directory, BROKER)
    broker = _fields(_text(own), own)["public"]
    public, secret = _pair()
    file = f"{name}.key"
    fields = {"public": public, "secret": secret, "broker": broker}
    _write(os.path.join(directory, file), fields, f"for a {role}: copy this file to where it runs, mode 0600")
    roles = CLIENT_ROLES if role == "client" else role
    _append(os.path.join(directory, ALLOWED), f"{roles} {public} {name}\n")
    return file


def keys_of_peer(place: str | os.PathLike[str] | PeerKeys | None, *roles: str) -> PeerKeys:
    """Read the key of a peer.

    Args:
        place: the key itself, or its file; or a directory with one that is called as the first of the roles that has
            one; None for the usual directory.
        roles: what the peer is to be.

    Raises:
        UsageError: there is no usable key, or others can read it.
    """
    if isinstance(place, PeerKeys):
        return place
    path = usual_directory() if place is None else os.fspath(place)
    if os.path.isdir(path):
        names = [os.path.join(path, f"{role}.key") for role in roles]
        path = next((name for name in names if os.path.exists(name)), names[0])
    return parsed(_text(path), path)


def parsed(text: str, path: str) -> PeerKeys:
    """Read what stands in the key file of a peer.

    Raises:
        UsageError: that is no such thing.
    """
    fields = _fields(text, path)
    if "broker" not in fields:
        raise UsageError(f"{path} is the key of a broker itself; a peer needs one that `headrace keygen` made for it")
    return PeerKeys(fields["public"], fields["secret"], fields["broker"])


def keys_of_broker(directory: str | BrokerKeys | None) -> BrokerKeys:
    """Read the keys of a broker, and its list.

    Args:
        directory: where they are, or they themselves; None for the usual directory.

    Raises:
        UsageError: there are none, they are not usable, or others can read them.
    """
    if isinstance(directory, BrokerKeys):
        return directory
    directory = usual_directory() if directory is None else directory
    if not os.path.exists(os.path.join(directory, BROKER)):
        raise UsageError(
            "a broker that listens to the network needs keys, also on this machine alone, and there are none in "
            f"{directory}: make them by `headrace keygen {directory}`"
        )
    own = os.path.join(directory, BROKER)
    fields = _fields(_text(own), own)
    path = os.path.join(directory, ALLOWED)
    allowed = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 2 or not set(words[0].split(",")) <= set(ROLES) or len(words[1]) != _KEY_DIGITS:
            raise UsageError(f"{path}, line {number}: a line is roles ({', '.join(ROLES)}), a public key and a name")
        allowed.append((words[1], words[0]))
    return BrokerKeys(fields["public"], fields["secret"], allowed)


def _pair() -> tuple[str, str]:
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _write(path: str, fields: dict[str, str], comment: str) -> None:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already: remove it first if it is to be made anew") from None
    with open(fd, "w", encoding="ascii") as file:
        file.write(f"# headrace key, {comment}\n{_lines(fields)}")


def _lines(fields: dict[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in fields.items())


def _append(path: str, text: str) -> None:
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "a", encoding="utf-8") as file:
        file.write(text)


def _fields(text: str, path: str) -> dict[str, str]:
    # A key may have the sign of a comment in it, so only whole lines are comments.
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    fields = {words[0]: words[1] for words in lines if len(words) == 2}
    keys = [fields.get("public", ""), fields.get("secret", ""), fields.get("broker", fields.get("public", ""))]
    if any(len(key) != _KEY_DIGITS for key in keys):
        raise UsageError(f"{path} is no key file of headrace")
    return fields


def _text(path: str) -> str:
    """Read a file that nobody else may read or change."""
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
                raise UsageError(
                    f"{path} can be read by others than this user (mode {mode:04o}, owner {status.st_uid}), so it is "
                    f"no secret: run `chmod 600 {path}`, and make a new key if somebody may have seen it"
                )
            return file.read()
    except FileNotFoundError:
        raise UsageError(f"there is no key at {path}: `headrace keygen` makes keys, where the broker is") from None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
