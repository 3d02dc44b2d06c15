"""What the long-running commands say of themselves on standard error, for people or for programs."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

#: For people: lines; for programs: a JSON object a line.
FORMATS = ("text", "json")

log_format = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How the lines on standard error look: json is one object each.",
)


class Log:
    """The log of one command.

    Args:
        program: what it is called.
        form: one of `FORMATS`.
    """

    def __init__(self, program: str, form: str) -> None:
        self._program = program
        self._is_json = form == "json"
        self._lock = threading.Lock()

    def say(self, event: str, text: str, **fields: Any) -> None:
        """Say what has happened: by a word for programs, and in words for people."""
        if not self._is_json:
            line = f"{self._program}: {text}"
        else:
            time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = json.dumps({"time": time, "program": self._program, "event": event, "text": text, **fields})
        with self._lock:
            click.echo(line, err=True)

    def note(self, event: str, text: str, **fields: Any) -> None:
        """The same where people see it elsewhere."""
        if self._is_json:
            self.say(event, text, **fields)

    def taker(self) -> Callable[[int | None, str, str], None] | None:
        """Give what takes the lines of a broker and its workers; None where they appear as they are."""
        return self._take if self._is_json else None

    def _take(self, worker: int | None, stream: str, text: str) -> None:
        for line in text.splitlines():
            if worker is None:
                self.say("broker", line.removeprefix("headrace: "))
            else:
                self.say("output", line, worker=worker, stream=stream)
