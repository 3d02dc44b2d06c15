"""Processor time of live processes, from the kernel's own counters (nanoseconds, not clock ticks)."""

from pathlib import Path


def processor_time_ns(pid: int) -> int:
    """Nanoseconds on a processor of all threads that the process has now."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no Rss in /proc/{pid}/smaps_rollup")
