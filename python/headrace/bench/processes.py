"""All processes that belong together, wherever they have gone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

#: Whoever has it in its environment was started by the session that it names.
VARIABLE = "HEADRACE_BENCH_SESSION"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Family:
    """The processes of one session: those with the mark, those of its first one's session, and their descendants.

    Each of the three misses some: programs that set their title write over their environment, daemons leave their
    session, orphans have another parent.

    Args:
        mark: the variable's value.
        first: process id of the first one.
    """

    def __init__(self, mark: str, first: int) -> None:
        self._words = f"{VARIABLE}={mark}".encode()
        self._first = first
        #: Those that were seen to belong here, with the time of their start: ids are used again.
        self._known: dict[int, str] = {}

    def pids(self) -> list[int]:
        """Those that live."""
        fields = {int(name): _fields(int(name)) for name in os.listdir("/proc") if name.isdigit()}
        living = {pid: some for pid, some in fields.items() if some and some[0] not in "ZX"}
        ours = {pid for pid, some in living.items() if self._is_ours(pid, some)}
        found = len(ours)
        while True:
            ours |= {pid for pid, some in living.items() if int(some[1]) in ours}
            if len(ours) == found:
                break
            found = len(ours)
        self._known |= {pid: living[pid][19] for pid in ours}
        return sorted(ours)

    def _is_ours(self, pid: int, fields: list[str]) -> bool:
        if self._known.get(pid) == fields[19] or int(fields[3]) == self._first:
            return True
        try:
            return self._words in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def processor_s(self) -> float:
        """Processor time of all, and of children that they have waited for."""
        return sum(sum(map(int, _fields(pid)[11:15])) for pid in self.pids()) / _TICKS_PER_S

    def memory_bytes(self) -> int:
        """Resident memory of all. What several share is counted once: each has its proportional part."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) << 10
        return total

    def end(self, patience_s: float = 5) -> None:
        """End those that live still."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while self.pids():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return


class Peak:
    """The most memory that a family had while this watched, in a `with` block. Watching slows it: time nothing then."""

    INTERVAL_S = 0.02

    def __init__(self, family: Family) -> None:
        self._family = family
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._family.memory_bytes())
            if self._over.wait(self.INTERVAL_S):
                return


def _fields(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
