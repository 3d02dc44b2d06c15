"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe_host() -> dict[str, str | int]:
    """Give the versions and the machine that figures depend on."""
    return {
        "headrace": version("headrace"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)),
    }


def host_line() -> str:
    """Say the same in one line."""
    host = describe_host()
    return f"headrace {host['headrace']}, {host['python']}, {host['kernel']}, {host['cores']} cores"
