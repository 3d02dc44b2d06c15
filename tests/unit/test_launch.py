"""What a worker process is started with."""

import os
import pickle
import subprocess
import sys

import pytest

from headrace import errors, launch


def test_libzmq_is_found_without_importing_zmq():
    script = (
        "import sys; from headrace.launch import libzmq_candidates as c; print('zmq' in sys.modules, *c(), sep='\\n')"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    imported, *paths, last = answer.split("\n")[:-1]
    assert imported == "False"
    assert last == "libzmq.so.5", "the system's comes last"
    assert all(os.path.exists(path) for path in paths)
    bundled = [path for path in paths if "pyzmq.libs/libzmq" in path]
    assert paths[: len(bundled)] == bundled, "the wheel's own library comes first"


def test_numeric_libraries_get_one_thread_unless_the_user_said_else(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    environment = launch.worker_environment({"FLAVOUR": "sour", "NUMBA_NUM_THREADS": "2"})
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2", "FLAVOUR": "sour"}
    assert wanted.items() <= environment.items()
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("flags", [[], ["-O"], ["-I"], ["-E", "-s"], ["-B", "-X", "dev"], ["-W", "ignore::Warning"]])
def test_workers_get_the_flags_of_their_client(flags):
    show = "import sys; print(sys.flags[:-2], sys.warnoptions, sorted(sys._xoptions))"
    script = f"import sys, subprocess\nfrom headrace.launch import interpreter_flags\n{show}\nsys.stdout.flush()\n"
    script += f"subprocess.run([sys.executable, *interpreter_flags(), '-c', {show!r}])"
    command = [sys.executable, *flags, "-c", script]
    ours, theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # The last flag, safe_path, may differ: a worker's folder must not shadow the standard library while it starts.
    assert ours == theirs


def test_the_boot_record_says_what_the_client_is():
    record = pickle.loads(launch.boot_record(["json"], os.getcwd))
    assert record["sys_path"] == sys.path
    assert record["preload"] == ["json"]
    assert pickle.loads(record["setup"]) is os.getcwd
    assert pickle.loads(launch.boot_record((), None))["setup"] is None


@pytest.mark.parametrize("preload", ["numpy", [3]])
def test_preload_takes_names_in_a_list(preload):
    with pytest.raises(errors.UsageError, match="list of module names"):
        launch.boot_record(preload, None)


def test_a_setup_that_cannot_travel_is_refused():
    lock = __import__("threading").Lock()
    with pytest.raises(errors.ArgumentNotPicklable, match="setup"):
        launch.boot_record((), lambda: lock)
