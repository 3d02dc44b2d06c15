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
        self._shared_before = _shared_memory_bytes()

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

    def memory_bytes(self, pids: list[int] | None = None) -> int:
        """Memory of all, or of those that were found before. What several share is counted once.

        So is shared memory that nobody has mapped just now. The latter is told by the machine's own count, so what
        else puts something into shared memory meanwhile is counted, too.
        """
        own = shared = 0
        for pid in self.pids() if pids is None else pids:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, rest = line.partition(":")
                    if name in ("Pss_Anon", "Pss_File"):
                        own += int(rest.split()[0]) << 10
                    elif name == "Pss_Shmem":
                        shared += int(rest.split()[0]) << 10
        return own + max(shared, _shared_memory_bytes() - self._shared_before)

    def moved_bytes(self) -> int:
        """Bytes that all have written to files and pipes, and that went over the loopback.

        Unix sockets tell nothing.
        """
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                    if line.startswith("wchar:"):
                        total += int(line.split()[1])
        return total + _loopback_bytes()

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


class Watch:
    """The memory of a family while this watches, in a `with` block. It takes a tenth of a core at most."""

    INTERVAL_S = 0.01
    _SHARE = 0.1
    #: To find the processes takes longer than to look at them.
    _FIND_S = 0.2

    def __init__(self, family: Family) -> None:
        self._family = family
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        #: Seconds since the beginning, and bytes then.
        self.samples: list[list[float]] = []

    @property
    def peak_bytes(self) -> int:
        """The most that it was."""
        return int(max((held for _, held in self.samples), default=0))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        begin = time.monotonic()
        find, pids, is_over = begin, self._family.pids(), False
        while True:
            look = time.monotonic()
            if look > find + self._FIND_S:
                find, pids = look, self._family.pids()
            self.samples.append([round(look - begin, 4), self._family.memory_bytes(pids)])
            if is_over:
                return
            took_s = time.monotonic() - look
            is_over = self._over.wait(max(self.INTERVAL_S, took_s / self._SHARE))


def _shared_memory_bytes() -> int:
    """All shared memory of this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) << 10
    return 0


def _loopback_bytes() -> int:
    """What has gone over the loopback."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[8])
    return 0


def _fields(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
