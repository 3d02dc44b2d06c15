"""What the embedded broker needs to start its workers: program, environment, boot record and libzmq."""

from __future__ import annotations

import glob
import importlib.util
import os
import pickle
import sys
from typing import TYPE_CHECKING, NamedTuple

from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Variables that size the thread pools of numeric libraries: one worker per core wants one thread each.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

#: The worker's first words. The package's folder goes last on its path, so that it can shadow nothing; the boot record
#: then brings the client's whole path.
_START = "import sys; sys.path.append({folder!r}); from headrace.worker import main; main()"


class Launch(NamedTuple):
    """How to start one worker; the broker adds the descriptors and numbers that differ from worker to worker."""

    program: str
    arguments: list[str]
    environment: list[tuple[str, str]]
    boot: bytes
    libzmq: list[str]


def prepare(
    preload: Sequence[str] = (),
    setup: Callable[[], object] | None = None,
    env: Mapping[str, str] | None = None,
    keys: tuple[str, str, str] | None = None,
) -> Launch:
    """Collect what a worker needs to be a Python like this one.

    Args:
        preload: names of modules that each worker imports before its first task.
        setup: a function without arguments that each worker calls once, after `preload`.
        env: environment variables for the workers, on top of this process's own.
        keys: what they show a broker in the network: own public, own secret, the broker's public key.

    Raises:
        UsageError: an argument is not of that form.
        ArgumentNotPicklable: `setup` cannot travel.
    """
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return Launch(
        program=sys.executable,
        arguments=[*interpreter_flags(), "-c", _START.format(folder=folder)],
        environment=list(worker_environment(env or {}).items()),
        boot=boot_record(preload, setup, keys),
        libzmq=libzmq_candidates(),
    )


def interpreter_flags() -> list[str]:
    """Give the command-line flags that make another interpreter behave like this one."""
    flags = ["-P"]  # the working directory must not shadow the standard library while the worker starts
    if sys.flags.isolated:
        flags.append("-I")
    else:
        flags += ["-E"] * sys.flags.ignore_environment + ["-s"] * sys.flags.no_user_site
    flags += ["-S"] * sys.flags.no_site + ["-B"] * sys.flags.dont_write_bytecode
    if sys.flags.optimize:
        flags.append("-" + "O" * sys.flags.optimize)
    if sys.flags.bytes_warning:
        flags.append("-" + "b" * sys.flags.bytes_warning)
    flags += [f"-W{option}" for option in sys.warnoptions]
    for name, value in sys._xoptions.items():
        flags += ["-X", name if value is True else f"{name}={value}"]
    return flags


def worker_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a worker: ours, one thread per numeric library unless it says else, then `extra`."""
    for name, value in extra.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UsageError(f"env must map str to str, not {name!r} to {value!r}")
    return {**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ, **extra}


def boot_record(
    preload: Sequence[str], setup: Callable[[], object] | None, keys: tuple[str, str, str] | None = None
) -> bytes:
    """Give the bytes that a worker reads before anything else."""
    check_preparation(preload, setup)
    blob = None
    if setup is not None:
        from headrace.pickling import dump_function

        blob = dump_function(setup, "setup")
    record: dict[str, object] = {
        "sys_path": list(sys.path),
        "preload": list(preload),
        "setup": blob,
        "authkey": family_key(),
    }
    if keys is not None:
        record["keys"] = tuple(keys)
    return pickle.dumps(record)


def family_key() -> bytes | None:
    """Give the key by which `multiprocessing` knows its own, if that is in use: proxies of its managers ask for it."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    return bytes(multiprocessing.current_process().authkey) if multiprocessing else None


def check_preparation(preload: Sequence[str], setup: Callable[[], object] | None) -> None:
    """Raise `UsageError` for what no worker could do before its first task, in any mode."""
    if isinstance(preload, str) or not all(isinstance(name, str) for name in preload):
        raise UsageError(f"preload takes a list of module names, such as ['numpy'], not {preload!r}")
    if setup is not None and not callable(setup):
        raise UsageError(f"setup takes a function without arguments, not {setup!r}")


def libzmq_candidates() -> list[str]:
    """Give the paths where libzmq may be found, best first, without importing zmq (38 ms; the library alone takes 2).

    The library that the wheel of pyzmq brings, then pyzmq's extension (which links one or contains it), then the
    system's.
    """
    spec = importlib.util.find_spec("zmq")
    found: list[str] = []
    for package in (spec.submodule_search_locations or ()) if spec else ():
        beside = os.path.join(os.path.dirname(package), "pyzmq.libs")
        found += sorted(glob.glob(os.path.join(glob.escape(beside), "libzmq*.so*")))
        inside = os.path.join(package, "backend", "cython")
        found += sorted(glob.glob(os.path.join(glob.escape(inside), "_zmq*.so")))
    return [*found, "libzmq.so.5"]
