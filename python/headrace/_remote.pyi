"""The part of `headrace._core` for brokers of their own and other machines; it is no module of its own at run time."""

from typing import final

from headrace._core import ClientCore

@final
class Agent:
    """The agent of a machine, with its worker processes."""

    def __new__(
        cls,
        *,
        endpoint: str,
        keys: tuple[str, str, str] | None,
        libzmq: list[str],
        slots: int,
        store_limit: int,
        name: str,
        resources: list[tuple[str, int]],
        program: str,
        arguments: list[str],
        environment: list[tuple[str, str]],
        boot: bytes,
    ) -> Agent: ...
    def wait(self, joined: int, is_up: bool, timeout_s: float) -> tuple[int, bool, bool, str | None]:
        """Wait for news: how often it has joined, whether it is up, whether it has ended, and why if it was refused."""

    def drain(self) -> None:
        """Leave the broker once the workers have ended what they run."""

    def stop(self) -> None:
        """Leave the broker and end the workers."""

def connect_client(endpoint: str, libzmq: list[str], timeout_s: float, keys: tuple[str, str, str] | None) -> ClientCore:
    """Open a session with the broker at an endpoint, with keys: own public, own secret, the broker's public."""

def farewell_of(core: ClientCore) -> tuple[int | None, str] | None:
    """Tell why a session is over, if it is: the reason as on the wire, and a text."""

def drain_broker(core: ClientCore) -> None:
    """Have the broker of this process end once nothing is left to run."""

def wait_over(core: ClientCore, timeout_s: float) -> bool:
    """Wait until a session is over; False if the time is over before."""
