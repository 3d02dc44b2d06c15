"""What a figure was measured on; without it a figure says nothing."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def machine_card() -> dict[str, str]:
    """Cores, processor, memory, kernel, Python, versions, commit and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": first_match(Path("/proc/cpuinfo"), r"model name\s*:\s*(.+)") or platform.machine(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "headrace": importlib.metadata.version("headrace"),
        "pyzmq": importlib.metadata.version("pyzmq"),
        "load": f"{os.getloadavg()[0]:.2f} before the run",
    }


def commit() -> str:
    """The commit that was measured, marked if the tree differs from it."""
    answer = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def first_match(file: Path, pattern: str) -> str:
    """The first group of the first match in a file, or nothing."""
    found = re.search(pattern, file.read_text()) if file.exists() else None
    return found.group(1).strip() if found else ""
