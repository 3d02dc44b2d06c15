"""What any executor must do, held by every face of headrace, on processes and on threads.

A face runs one call, or many; how it submits them and where it puts their results is its own business.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import headrace as hr

MODES = ["processes", "threads"]
TIMEOUT_S = 30


class Calls:
    """`Client.call`."""

    def __init__(self, mode):
        self.mode = mode
        self.end = hr.Client(workers=2, mode=mode)

    def many(self, fn, *rows):
        futures = [self.end.call(fn, *args) for args in rows]
        return [future.result(TIMEOUT_S) for future in futures]


class Graphs(Calls):
    """`Client.submit`."""

    def many(self, fn, *rows):
        graph = hr.Graph(by_reference=self.mode == "threads")
        nodes = [graph.add(fn, *args) for args in rows]
        return self.end.submit(graph, keep=nodes).gather(timeout=TIMEOUT_S)


class Executors:
    """`headrace.Executor`."""

    def __init__(self, mode):
        self.end = hr.Executor(2, mode=mode)

    def many(self, fn, *rows):
        futures = [self.end.submit(fn, *args) for args in rows]
        return [future.result(TIMEOUT_S) for future in futures]


class Dask:
    """`DaskClient`, by `dask.delayed`."""

    def __init__(self, mode):
        pytest.importorskip("dask")
        from headrace.integrations.dask import DaskClient

        self.end = DaskClient(workers=2, mode=mode)

    def many(self, fn, *rows):
        import dask

        return list(dask.compute(*(dask.delayed(fn)(*args) for args in rows), scheduler=self.end))


class Joblib:
    """joblib's `Parallel`."""

    def __init__(self, mode):
        pytest.importorskip("joblib")
        import headrace.integrations.joblib

        assert headrace.integrations.joblib
        self.mode = mode
        self.end = hr.Client(workers=2, mode=mode)

    def many(self, fn, *rows):
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="headrace", client=self.end, n_jobs=2):
            return Parallel()(delayed(fn)(*args) for args in rows)


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module", params=[Calls, Graphs, Executors, Dask, Joblib], ids=lambda face: face.__name__)
def face(request, mode):
    face = request.param(mode)
    yield face
    end = face.end
    end.shutdown() if isinstance(end, hr.Executor) else end.close()


class Sour(Exception):
    """An exception with state, that pickles."""

    def __init__(self, degree):
        super().__init__(degree)
        self.degree = degree


def square(x):
    return x * x


def same(x):
    return x


def fail(degree):
    raise Sour(degree)


def leave(code):
    os._exit(code)


def where(_number):
    return os.getpid(), threading.get_ident()


def meet(mine, other):
    """Say that one is here, and wait until the other is: both must run at once."""
    Path(mine).touch()
    while not Path(other).exists():
        pass
    return True


def test_values_come_in_the_order_of_the_calls(face):
    assert face.many(square, *((x,) for x in range(200))) == [x * x for x in range(200)]


@pytest.mark.parametrize("value", [None, True, 7, 1 << 100, 1.5, "täxt", b"bytes", (1, 2), {"a": [1, None]}, {1, 2}])
def test_a_value_is_what_it_was(face, value):
    (found,) = face.many(same, (value,))
    assert found == value
    assert type(found) is type(value)


def test_large_values_go_there_and_back(face):
    np = pytest.importorskip("numpy")
    array = np.arange(300_000.0).reshape(300, 1_000)
    found, turned = face.many(same, (array,), (array.T,))
    assert np.array_equal(found, array)
    assert np.array_equal(turned, array.T)


def test_functions_may_close_over_values(face):
    factor = 3
    assert face.many(lambda x: factor * x, (1,), (2,)) == [3, 6]


def test_an_exception_is_the_one_that_was_raised(face):
    with pytest.raises(Sour) as caught:
        face.many(fail, (5,))
    assert caught.value.degree == 5
    assert "headrace: raised by task" in "".join(caught.value.__notes__)
    assert face.many(square, (3,)) == [9]


def test_no_call_in_which_others_fail_is_lost(face):
    with pytest.raises(Sour):
        face.many(lambda x: fail(x) if x == 7 else x, *((x,) for x in range(20)))
    assert face.many(same, *((x,) for x in range(20))) == list(range(20))


def test_calls_run_at_once(face, tmp_path):
    pair = [str(tmp_path / name) for name in ("one", "other")]
    assert face.many(meet, pair, pair[::-1]) == [True, True]


def test_where_calls_run(face, mode):
    places = set(face.many(where, *((x,) for x in range(100))))
    assert all((pid == os.getpid()) == (mode == "threads") for pid, _ in places)
    assert len(places) <= 2


def test_several_threads_may_call(face):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: face.many(square, *((x,) for x in range(n, n + 20))), range(4)))
    assert found == [[x * x for x in range(n, n + 20)] for n in range(4)]


def test_what_cannot_travel_is_told_by_name(face, mode):
    if mode == "threads":
        assert face.many(lambda lock: lock.locked(), (threading.Lock(),)) == [False]
        return
    with pytest.raises((hr.ArgumentNotPicklable, TypeError), match="lock"):
        face.many(same, (threading.Lock(),))
    assert face.many(square, (4,)) == [16]


def test_the_death_of_a_worker_is_an_error_and_the_next_call_works(face, mode):
    if mode == "threads":
        pytest.skip("a thread's end is the end of the program")
    with pytest.raises(hr.WorkerDied):
        face.many(leave, (3,))
    assert face.many(square, (5,)) == [25]
