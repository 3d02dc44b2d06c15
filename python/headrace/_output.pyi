"""The part of `headrace._core` that marks what tasks write; it is no module of its own at run time."""

from collections.abc import Callable
from typing import Any, final

from typing_extensions import Buffer

@final
class Output:
    """Standard output and error of a worker process, as Python's streams write to them."""

    def write(self, stream: int, data: Buffer) -> int | None:
        """Write the beginning of `data` to standard output (1) or error (2), marked with the task that executes.

        Gives how many bytes of it that took, or None if there is no room and the descriptor does not block.
        """

    def noting(self, stream: int, write: Callable[[Any], int]) -> Callable[[Any], int]:
        """Give the method `write` of standard output (1) or error (2), or of its buffer; a task's end flushes it."""

    def set_flush(self, flush: Callable[[], None]) -> None:
        """Say what flushes the buffers; what it raises is ignored."""
