"""Where an engine's system is installed: this interpreter, or a virtual environment that is made on demand.

Environments lie in `$HEADRACE_BENCH_HOME`, by default `~/.cache/headrace/bench`. They hold no headrace: an engine's
process finds it through a folder with nothing else in it, so that no package of this interpreter gets into the
other's way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import headrace
from headrace.bench.engines import Peer
from headrace.bench.engines.servers import find_program
from headrace.errors import InfraError


def home() -> Path:
    """Where environments lie."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "bench"
    return Path(os.environ.get("HEADRACE_BENCH_HOME") or default)


def package_path() -> Path:
    """A folder from which the package headrace, and only that, can be imported."""
    package = Path(headrace.__file__).parent
    folder = home() / "path" / hashlib.blake2b(str(package).encode(), digest_size=6).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / "headrace"
        if not link.is_symlink():
            link.symlink_to(package, target_is_directory=True)
    except OSError as error:
        raise InfraError(f"cannot write to {home()}: {error}; name another place in HEADRACE_BENCH_HOME") from None
    return folder


def python_of(peer: Peer) -> Path:
    """The interpreter in which the engine runs."""
    return _folder(peer) / "bin" / "python" if peer.requirements else Path(sys.executable)


def missing(peer: Peer) -> str:
    """What has to be there before the peer can start, in words; empty if nothing is missing."""
    for program in peer.programs:
        name, _, package = program.partition(" ")
        if find_program(name) is None:
            return f"needs the program {name} on PATH (Debian package {package.strip('()')})"
    if peer.requirements and not _record(peer).exists():
        return f"not installed ({', '.join(peer.requirements)}): run with --install"
    return ""


def install(peer: Peer) -> str:
    """Make the peer's environment; peers with the same needs share one.

    Returns:
        Why it could not be made; empty if it is there.
    """
    if not peer.requirements or _record(peer).exists():
        return ""
    folder = _folder(peer)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.requirements],
    ]
    if peer.go:
        if shutil.which("go") is None:
            return f"cannot be installed: there is no go, which builds {peer.go}"
        commands.append(["go", "install", peer.go])
    environment = os.environ | {"GOBIN": str(folder / "bin")}
    with log.open("w") as words:
        for command in commands:
            if subprocess.run(command, stdout=words, stderr=subprocess.STDOUT, check=False, env=environment).returncode:
                last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                return f"cannot be installed: {last[-1] if last else command}"
    _record(peer).write_text(json.dumps(peer.requirements))
    return ""


def fresh_logs(peers: list[Peer]) -> Path:
    """The folder for what engines print; what these peers have printed before is gone."""
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for peer in peers:
        (folder / f"{peer.name}.log").unlink(missing_ok=True)
    return folder


def _folder(peer: Peer) -> Path:
    needs = "\n".join((sys.version, *peer.requirements, *filter(None, [peer.go])))
    first = re.split(r"[^\w.-]", peer.requirements[0])[0]
    return home() / f"{first}-{hashlib.blake2b(needs.encode(), digest_size=4).hexdigest()}"


def _record(peer: Peer) -> Path:
    """Written last: it is there if the environment is whole."""
    return _folder(peer) / "headrace-bench.json"
