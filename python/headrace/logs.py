"""What a task has written, as its client has heard it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace._core import ClientCore


def read_log(core: ClientCore, run: int, index: int, key: str) -> str:
    """Give what the task of this key has written so far."""
    found = core.log(run, index)
    if found is None:
        raise UsageError(
            f"there is no log of {key!r}: where tasks run in the client's own process, they write to its standard "
            'output and error. Use Client(mode="processes"), or contextlib.redirect_stdout in the task'
        )
    tail, bytes_dropped = found
    text = tail.decode(errors="replace")
    if bytes_dropped:
        text = f"[headrace] {bytes_dropped:,} bytes that came before were not kept\n{text}"
    return text
