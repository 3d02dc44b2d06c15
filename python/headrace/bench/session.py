"""A session: one engine in a process of its own, from its start to the end of all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.bench.engines import Peer
from headrace.bench.environments import package_path, python_of
from headrace.bench.processes import VARIABLE, Family

_STOP_TIMEOUT_S = 60


class PeerFailed(Exception):  # noqa: N818  (named by what happened)
    """An engine could not do what it was asked for. The text is the reason that the report gives."""


class Session:
    """A started engine, in a `with` block.

    Args:
        peer: which one.
        workers: how many workers it has.
        folder: where its words go: what it prints stands in a file there.
        more: what else is to stand in its environment.
    """

    def __init__(self, peer: Peer, workers: int, folder: Path, more: Mapping[str, str] | None = None) -> None:
        self.peer = peer
        self.workers = workers
        mark = str(uuid.uuid4())
        #: Whether a request is still running, so that it would not hear of the next one.
        self._is_stuck = False
        self.log = folder / f"{peer.name}.log"
        self._scratch = tempfile.TemporaryDirectory(prefix="hrb-")  # short: sockets lie below it
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {VARIABLE: mark, "PYTHONPATH": str(package_path()), "HEADRACE_BENCH_SCRATCH": self._scratch.name}
        environment |= more or {}
        python = python_of(peer)
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [python, "-m", "headrace.bench.peer", peer.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._scratch.name,
                start_new_session=True,
            )
        self.family = Family(mark, self._process.pid)
        try:
            started = self.ask({"do": "start", "workers": workers}, peer.start_timeout_s)
        except BaseException:
            self._end()
            raise
        self.start_s: float = started["start_s"]
        self.versions: dict[str, str] = started["versions"]

    def run(self, workload: str, repeats: int, budget_s: float, timeout_s: float) -> dict[str, Any]:
        """Run a workload up to `repeats` times, or until the budget is spent."""
        return self.ask({"do": "run", "workload": workload, "repeats": repeats, "budget_s": budget_s}, timeout_s)

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            PeerFailed: it said so, ended, or took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerFailed(f"its process ended; {self._last_words()}") from None
        line = self._line(timeout_s)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        deadline, line = time.monotonic() + timeout_s, b""
        file = self._process.stdout.fileno()
        # Its end shows here alone: forked workers hold the other end of the pipe.
        life = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(file, selectors.EVENT_READ)
                selector.register(life, selectors.EVENT_READ)
                while not line.endswith(b"\n"):
                    ready = [key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
                    if not ready:
                        self._is_stuck = True
                        raise PeerFailed(f"no answer within {timeout_s:.0f} s")
                    part = os.read(file, 1 << 20) if file in ready else b""
                    if not part:
                        raise PeerFailed(f"its process ended; {self._last_words()}")
                    line += part
        finally:
            os.close(life)
        return line

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its last words: {lines[-1].strip()}" if lines else "it said nothing"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._is_stuck:
                self.ask({"do": "stop"}, _STOP_TIMEOUT_S)
        except PeerFailed:
            pass  # what it leaves is ended below
        finally:
            self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # what it did not read any more
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(0 if self._is_stuck else 5)
        except subprocess.TimeoutExpired:
            self.family.end()
        self._process.wait()
        self.family.end()
        self._scratch.cleanup()
