"""What a figure was measured on; without it a figure says nothing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

_HERE = Path(__file__)


def machine_card() -> dict[str, str]:
    """Cores, processor, memory, kernel, governor, Python, versions, build, commit and date."""
    from headrace import _core

    cores = os.sched_getaffinity(0)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "build": _core.PROFILE,
        "cores": str(len(cores)) if len(cores) == os.cpu_count() else f"{len(cores)} of {os.cpu_count()} (pinned)",
        "cpu": first_match(Path("/proc/cpuinfo"), r"model name\s*:\s*(.+)") or platform.machine(),
        "governor": governor.read_text().strip() if governor.exists() else "not visible",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "headrace": importlib.metadata.version("headrace"),
        "pyzmq": importlib.metadata.version("pyzmq"),
        "load": f"{os.getloadavg()[0]:.2f} before the run",
    }


def commit() -> str:
    """The commit that was measured, marked if the tree differs from it.

    Of an installed package it is that of our repository in which this runs; elsewhere `unknown`.
    """
    beside = Path("python", "headrace", "bench", _HERE.name)
    for folder, file in ((_HERE.parent, _HERE.name), (Path.cwd(), str(beside))):
        if _git(folder, "ls-files", "--error-unmatch", file) is not None:
            return _git(folder, "describe", "--always", "--dirty", "--abbrev=10") or "unknown"
    return "unknown"


def first_match(file: Path, pattern: str) -> str:
    """The first group of the first match in a file, or nothing."""
    found = re.search(pattern, file.read_text()) if file.exists() else None
    return found.group(1).strip() if found else ""


def yardstick_us() -> float:
    """Microseconds of a fixed piece of pure Python, the best of five: how fast this machine is right now."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        total = 0
        for number in range(20_000):
            total += number & 7
        times.append(time.perf_counter() - start)
    return min(times) * 1e6


def _git(folder: Path, *words: str) -> str | None:
    """The answer of git about a folder, or None."""
    try:
        answer = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
