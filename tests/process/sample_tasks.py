"""Functions that the worker tests run; a module of its own, so that workers import nothing else for it."""

import ctypes
import os
import sys


def inc(number):
    return number + 1


def append_to(items, item):
    items.append(item)
    return items


def who_am_i():
    from headrace.current import current

    task = current()
    return task.key, task.attempt, task.worker, task.cancelled


def ask_in_a_thread():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(who_am_i).result()


def main_names():
    return sorted(vars(sys.modules["__main__"]))


def client_path():
    return sys.path


def arguments():
    return sys.argv


class Unruly(BaseException):
    pass


def raises(error):
    raise error


def raise_long():
    raise ValueError("x" * (2 << 20))


def generate():
    yield 1


async def coroutine():
    pass


async def async_generator():
    yield 1


class Holder:
    def __init__(self):
        import threading

        self.inner = {"lock": threading.Lock()}


#: Its functions keep the interpreter lock.
_libc = ctypes.PyDLL(None)


def hold_interpreter(entered, release):
    """Keep the interpreter lock from everybody until the test writes to the second of two named pipes."""
    read_fd = os.open(release, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(read_fd, True)
    with open(entered, "w"):
        pass
    poll = ctypes.create_string_buffer(int.to_bytes(read_fd, 4, "little") + int.to_bytes(1, 4, "little"))
    while _libc.poll(poll, 1, -1) < 0:  # a signal came
        pass
    os.close(read_fd)
    return "released"


def spin_until_interrupted(entered):
    """Run Python code for ever."""
    with open(entered, "w"):
        pass
    while True:
        pass


def finish_in_spite_of(entered):
    """Swallow the interrupt and return."""
    try:
        spin_until_interrupted(entered)
    except KeyboardInterrupt:
        return "finished"


def fork_and_return():
    """Return twice: in the task and in a child of it."""
    child = os.fork()
    if child == 0:
        return "child"
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def leave_at_exit(path):
    """Write to a file when the process ends in an orderly way."""
    import atexit

    atexit.register(lambda: open(path, "w").close())
