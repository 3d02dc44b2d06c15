"""Functions that fail in every way, for workers to run."""

import os
import threading
import time
from pathlib import Path


class Sour(Exception):
    def __init__(self, degree, *, where="here"):
        super().__init__(degree)
        self.degree = degree
        self.where = where


class Needs(Exception):
    """Takes two arguments and keeps one, as many do."""

    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")


class Unruly(BaseException):
    pass


class Several(ExceptionGroup):
    def derive(self, members):
        return type(self)(self.message, members)


def inc(number):
    return number + 1


def raises(error):
    raise error


def process_id():
    return os.getpid()


def fail_noted():
    error = Sour(7, where="there")
    error.add_note("first")
    raise error


def fail_from_a_cause():
    try:
        fail_noted()
    except Sour as error:
        raise KeyError("outer") from error


def fail_while_handling():
    try:
        fail_noted()
    except Sour:
        raise KeyError("outer")  # noqa: B904


def fail_from_none():
    try:
        fail_noted()
    except Sour:
        raise KeyError("outer") from None


def fail_in_a_group():
    def caught(function):
        try:
            function()
        except Exception as error:
            return error

    inner = Several("inner", [caught(fail_from_a_cause), Needs(1, 2)])
    inner.add_note("inside")
    raise ExceptionGroup("outer", [inner, OSError(2, "no such thing", "path")])


def fail_with_a_lambda():
    error = Sour(7)
    error.retry = lambda degree: degree + 1
    raise error


def fail_with_a_lock():
    error = Sour(7)
    error.lock = threading.Lock()
    raise error from ValueError("the rest")


def fail_needing():
    raise Needs(1, 2)


def fail_long(size):
    raise ValueError("x" * size)


def fail_deep(number=0):
    return fail_deep(number + 1)


def fail_by_a_local_class():
    class Local(Sour):
        pass

    raise Local(7)


def fail_by_a_loop():
    first, second = Sour(1), Sour(2)
    first.__cause__, second.__cause__ = second, first
    raise first


class Speechless(Exception):
    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


def fail_without_words():
    raise Speechless


class Fleeting(Exception):
    """Leaves the process when it is pickled."""

    def __reduce__(self):
        raise KeyboardInterrupt


def fail_while_it_is_recorded():
    raise Fleeting("x")


class Endless(Exception):
    """Takes for ever to be pickled, and says so."""

    def __init__(self, path):
        super().__init__(path)

    def __reduce__(self):
        Path(self.args[0]).touch()
        while True:
            time.sleep(0.001)


def fail_for_ever(path):
    raise Endless(path)


def lock():
    return threading.Lock()
