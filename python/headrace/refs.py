"""Refs: a result by name, to be passed on without being fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from headrace._core import ExternalRef

if TYPE_CHECKING:
    from headrace._core import ClientCore
    from headrace.client import Client

T = TypeVar("T")


class Ref(ExternalRef, Generic[T]):
    """A name for a kept result of a run, from `run.ref(node)`.

    A ref may stand anywhere in the arguments of `Graph.add`, `Graph.map` and `client.call`, for the same client: the
    worker gets the value, and the client need never see it. The result lives at least as long as its refs, also after
    the run was released.
    """

    #: Key of the task.
    key: str

    def __init__(self, core: ClientCore, run: int, index: int, client: Client, key: str) -> None:
        self._client = client
        self.key = key

    def __repr__(self) -> str:
        return f"<Ref to {self.key!r}>"
