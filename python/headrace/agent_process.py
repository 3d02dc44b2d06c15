"""The agent of a machine as a process of its own, for programs that start agents where others tell them to."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from headrace.attached import endpoint_of, is_far
from headrace.errors import InfraError
from headrace.keys import keys_of_peer
from headrace.launch import interpreter_flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from headrace.keys import PeerKeys

#: The agent's first words: it looks for modules where this process does, and then is the command line.
_START = "import sys; sys.path[:] = {path!r}; from headrace.cli import main; main()"


class AgentProcess:
    """`headrace worker` as a child of this process, which it does not outlive, however that ends.

    Args:
        address: of the broker: "tcp://HOST:PORT", or one on this machine.
        keys: `SessionKeys().worker`, or a key file of a worker, or its directory; by default as for `Client`. The agent
            reads it from a pipe, so it is in no command line, environment or file.
        slots: how many worker processes; by default one for each core.
        name: what people call this machine; by default its host name.
        resources: how much there is of what tasks ask for, for the workers of this agent.
        preload: names of modules that each worker imports before its first task.
        give_up_s: seconds without a broker after which the agent ends; by default it waits for ever.

    Raises:
        UsageError: an argument is not usable.

    Cost: some milliseconds. The agent takes some 100 ms more to join, its workers as much again.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: str | PeerKeys | None = None,
        slots: int | None = None,
        name: str | None = None,
        resources: Mapping[str, int | str] | None = None,
        preload: Sequence[str] = (),
        give_up_s: float | None = None,
    ) -> None:
        own = keys_of_peer(keys, "worker") if is_far(endpoint_of(address)) else None
        options = {"--slots": slots, "--name": name, "--give-up-s": give_up_s}
        words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
        words += [f"--resource={thing}={amount}" for thing, amount in (resources or {}).items()]
        words += [word for module in preload for word in ("--preload", module)]
        words += ["--keys", "-"] if own else []
        start = _START.format(path=[os.path.abspath(place) for place in sys.path])
        command = [sys.executable, *interpreter_flags(), "-c", start, "worker", address, "--tied", *words]
        # In a session of its own: an interrupt from the keyboard is for this process, which ends the agent if it ends.
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._said = b""
        if own:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its exit code says why
                self._input.write(own.text().encode())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def wait_joined(self, timeout_s: float) -> None:
        """Wait until the agent is with the broker.

        Raises:
            InfraError: the broker does not want it, or it has ended.
            TimeoutError: the time is over before.
        """
        until_s = time.monotonic() + timeout_s
        while b"\n" not in self._said:
            if not select.select([self._output], [], [], max(0.0, until_s - time.monotonic()))[0]:
                raise TimeoutError(f"the agent has not reached its broker within {timeout_s:g} s")
            if not (more := self._output.read(4096)):
                raise InfraError(f"the agent has ended with code {self.wait()}, before it had joined")
            self._said += more
        line = self._said.decode(errors="replace").partition("\n")[0]
        if line != JOINED:
            raise InfraError(line.removeprefix(REFUSED))

    def poll(self) -> int | None:
        """Give its exit code: 0 if it or the broker was told to end, 3 if that does not want it; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end, and give its exit code.

        Raises:
            TimeoutError: the time is over before.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the agent has not ended within {timeout_s:g} s") from None

    def drain(self) -> None:
        """Have it leave as soon as its workers have ended what they run; they are given nothing more."""
        self._process.terminate()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Have it leave at once, with its workers, and wait for that. What they were running runs again elsewhere."""
        self._input.close()
        try:
            self.wait(timeout_s)
        except TimeoutError:
            self._process.kill()  # its workers end with it
            self._process.wait()
        self._output.close()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


#: The first words of an agent on standard output: it is with the broker, or it will not be.
JOINED, REFUSED = "joined", "refused: "
