"""Databases that engines need, started for them alone: on a socket in a private folder, with their files there."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_START_S = 30


def start_postgres(scratch: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start PostgreSQL with its default settings.

    Returns:
        Its process, and what libpq connects to.
    """
    import psycopg

    # It refuses to run as root.
    user = _other_user() if os.geteuid() == 0 else None
    data = scratch / "pg"
    data.mkdir(mode=0o700)
    if user is not None:
        scratch.chmod(0o711)
        shutil.chown(data, user)
    as_user: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": data}
    subprocess.run(
        [_program("initdb"), "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        **quiet,
        **as_user,
    )
    server = subprocess.Popen(
        [_program("postgres"), "-D", data, "-k", data, "-c", "listen_addresses="], **quiet, **as_user
    )
    address = f"host={data} user=bench dbname=postgres"
    _wait(server, lambda: psycopg.connect(address).close(), psycopg.OperationalError)
    return server, address


def start_redis(scratch: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start Redis without persistence.

    Returns:
        Its process, and the path of its socket.
    """
    import redis

    path = str(scratch / "redis")
    server = subprocess.Popen(
        [_program("redis-server"), "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        cwd=scratch,
    )
    _wait(server, lambda: redis.Redis(unix_socket_path=path).ping(), redis.ConnectionError)
    return server, path


def find_program(name: str) -> str | None:
    """Where a program is; Debian keeps those of PostgreSQL out of PATH."""
    found = shutil.which(name)
    return found or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)


def _program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(f"there is no {name}")
    return found


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise PermissionError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _wait(server: subprocess.Popen[bytes], connect: Callable[[], object], not_yet: type[Exception]) -> None:
    """Try until it answers."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            connect()
            return
        except not_yet:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
