"""How much memory and disk results may take, unless the user says so; and how often workers may die, or live anew."""

from __future__ import annotations

import operator
import os
from typing import NamedTuple

from headrace.errors import UsageError
from headrace.options import check_seconds


class Lives(NamedTuple):
    """How many workers a task may end, and how many tasks a worker may run."""

    crash_limit: int
    """Executing deaths after which a task fails."""
    oom_limit: int
    """The same for deaths by the kernel's OOM killer."""
    tasks_max: int | None
    """Tasks after which a fresh process takes a worker's place; None for no end."""
    grace_s: float
    """Seconds between the interrupt of a task and the end of a worker that ignores it."""


def checked_lives(crash_limit: int, oom_limit: int, max_tasks_per_worker: int | None, grace_s: float) -> Lives:
    """Give these limits, or say what is wrong with them."""
    for name, limit in (("crash_limit", crash_limit), ("oom_limit", oom_limit)):
        if not _is_count(limit, DEATHS_MAX):
            raise UsageError(f"{name} takes a number of deaths from 1 to {DEATHS_MAX}, not {limit!r}")
    if max_tasks_per_worker is not None and not _is_count(max_tasks_per_worker, TASKS_MAX):
        raise UsageError(
            f"max_tasks_per_worker takes a number from 1 on, or None for no end, not {max_tasks_per_worker!r}"
        )
    check_seconds("grace_s", grace_s, lowest=0)
    return Lives(crash_limit, oom_limit, max_tasks_per_worker, grace_s)


#: The broker counts deaths in one byte, and tasks in eight.
DEATHS_MAX, TASKS_MAX = 255, (1 << 63) - 1


def _is_count(number: object, most: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= most


def checked_bytes(name: str, number: object, lowest: int = 1) -> int:
    """Give this limit in bytes as an int, numpy's integers too, or say what is wrong with it."""
    try:
        count = -1 if isinstance(number, bool) else operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if not lowest <= count <= BYTES_MAX:
        raise UsageError(f"{name} takes a number of bytes from {lowest} to 2**63 - 1, not {number!r}")
    return count


BYTES_MAX = (1 << 63) - 1


def default_store_limit() -> int:
    """Give half of the memory that this process may use: of its control group's limit, or of what is available."""
    return min(_available(), *group_limits()) // 2


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return 1 << 62


def group_limits() -> list[int]:
    """Give the limits of this process's control groups, of version 1 or 2; at least one number."""
    limits = [1 << 62]
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as lines:
            groups = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return limits
    for _, controllers, path in groups:
        if controllers == "":
            root, name = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A limit further up holds, too; in a container the path may not exist, and the root is the group's own.
        parts = path.strip("/").split("/") if path.strip("/") else []
        for depth in range(len(parts), -1, -1):
            try:
                with open("/".join([root, *parts[:depth], name]), encoding="ascii") as file:
                    text = file.read().strip()
            except OSError:
                continue
            if text.isdecimal():
                limits.append(int(text))
    return limits


def spill_place(directory: str | os.PathLike[str] | None, limit: int | None) -> tuple[str, int]:
    """Give the directory for results that memory has no room for, and the bytes that they may take there."""
    if limit is not None:
        limit = checked_bytes("spill_limit", limit, lowest=0)
    if directory is not None:
        try:
            place = os.fsdecode(directory)
        except TypeError:
            place = ""
        if not _is_usable(place):
            raise UsageError(f"spill_dir takes a directory that this process may write to, not {directory!r}")
    else:
        candidates = (os.environ.get("TMPDIR"), "/var/tmp", "/tmp")
        usable = (path for path in candidates if path and _is_usable(path) and not _is_memory(path))
        place = next(usable, "")
        if not place:
            return "", 0
    place = os.path.abspath(place)  # this process may go elsewhere meanwhile
    if limit is None:
        disk = os.statvfs(place)
        limit = disk.f_bavail * disk.f_frsize // 2
    return place, limit


def _is_usable(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def _is_memory(path: str) -> bool:
    """Whether files there take memory, so that nothing is won by a move."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            mounts = (line.split() for line in lines)
            kinds = [words[words.index("-") + 1] for words in mounts if words[2] == name]
    except (OSError, ValueError):
        return False
    return any(kind in ("tmpfs", "ramfs") for kind in kinds)
