"""An endpoint of HTTP that says whether a broker or an agent is well, for load balancers and Kubernetes."""

from __future__ import annotations

import re
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

#: Questions at a time; more are hung up on.
QUESTIONS_MAX = 16
#: Seconds in which a question has to come. It comes in one piece, or it is none.
QUESTION_S = 2.0
QUESTION_BYTES_MAX = 4_096

_PLACE = re.compile(r"(?:(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^/:\s\[\]]+)):)?(?P<port>[0-9]{1,5})")

health = click.option(
    "--health",
    metavar="[HOST:]PORT",
    help="Answer HTTP there: GET /live and /ready. Without HOST on this machine alone.",
)


class Health(ThreadingTCPServer):
    """Answers 200 or 503, on threads of its own. Nothing else can be asked, and nothing be changed.

    Args:
        place: "[HOST:]PORT"; None for nowhere.
        answers: by path, what says whether it is so.

    Raises:
        UsageError: that is no such place.
        OSError: it is taken, or none of this machine's.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, place: str | None, answers: Mapping[str, Callable[[], bool]]) -> None:
        self.answers = answers
        self._seats = threading.Semaphore(QUESTIONS_MAX)
        self._is_open = place is not None
        if place is None:
            return
        parts = _PLACE.fullmatch(place)
        if parts is None or int(parts["port"]) > 0xFFFF:
            raise click.UsageError(f"--health takes [HOST:]PORT, such as 8080 or 0.0.0.0:8080, not {place!r}")
        host = parts["v6"] or parts["host"] or "127.0.0.1"
        self.address_family = socket.AF_INET6 if parts["v6"] else socket.AF_INET
        super().__init__((host, int(parts["port"])), _Question)
        threading.Thread(target=self.serve_forever, name="headrace-health", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_open:
            self.shutdown()
            self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Hang up where too many ask."""
        return self._seats.acquire(blocking=False)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer one question."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has left, or was too slow."""


class _Question(BaseRequestHandler):
    server: Health

    def handle(self) -> None:
        """Answer it."""
        self.request.settimeout(QUESTION_S)
        words = self.request.recv(QUESTION_BYTES_MAX).split(b" ", 2)
        path = words[1].decode(errors="replace") if len(words) == 3 and words[0] in (b"GET", b"HEAD") else ""
        ask = self.server.answers.get(path)
        if ask is None:
            status, text = "404 Not Found", f"ask for {' or '.join(self.server.answers)}\n"
        else:
            is_so = ask()
            status, text = "200 OK" if is_so else "503 Service Unavailable", f"{'yes' if is_so else 'no'}\n"
        head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        self.request.sendall((head + ("" if words[0] == b"HEAD" else text)).encode())
