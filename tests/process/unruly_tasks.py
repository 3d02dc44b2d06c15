"""Tasks that do to their process what user code does to processes, by accident or on purpose."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref

# -- what belongs to the process ---------------------------------------------------------------------------------------


def close_every_descriptor():
    os.closerange(3, 1000)


def close_the_control_socket():
    os.close(3)
    return "closed"


def close_standard_descriptors():
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return "closed"


def drop_standard_streams():
    sys.stdin = sys.stdout = sys.stderr = None
    return "dropped"


def close_standard_streams():
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


def handle_signals():
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    return "handled"


def ignore_children():
    """Have the system bury children, so that nobody can ask how they ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return subprocess.run(["true"], check=False).returncode


def block_every_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return "blocked"


def move_elsewhere():
    os.chdir("/")
    return os.getcwd()


def clear_environment():
    os.environ.clear()
    return len(os.environ)


def want_few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return "few"


def become_another_program():
    os.execv("/bin/sleep", ["sleep", "600"])


def set_an_alarm():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(30)


def end_its_group():
    os.killpg(0, signal.SIGTERM)
    time.sleep(30)


def read_standard_input():
    return sys.stdin.read()


# -- what goes on ------------------------------------------------------------------------------------------------------


def _for_ever():
    while True:
        time.sleep(30)


def leave_threads():
    for daemon in (True, False):
        threading.Thread(target=_for_ever, daemon=daemon).start()
    return "left"


def leave_a_process():
    """Leave a child that has everything this process has, and goes on."""
    child = os.fork()
    if child == 0:
        _for_ever()
    return child


def leave_a_program():
    return subprocess.Popen(["sleep", "600"]).pid


# -- children ----------------------------------------------------------------------------------------------------------


def _exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_a_child_that_exits():
    child = os.fork()
    if child == 0:
        os._exit(7)
    return _exit_code(child)


def fork_a_child_that_raises():
    child = os.fork()
    if child == 0:
        raise ValueError("in the child")
    return _exit_code(child)


def fork_a_child_that_leaves():
    child = os.fork()
    if child == 0:
        sys.exit(7)
    return _exit_code(child)


def square(number):
    return number * number


def use_a_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(5))


def run_a_program():
    return subprocess.run(
        ["sh", "-c", "cat; echo heard"], input="said ", capture_output=True, text=True, check=True
    ).stdout


def give_a_dead_proxy():
    return weakref.proxy(set())
