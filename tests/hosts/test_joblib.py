"""joblib's own tests on headrace, and what they do not say."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

joblib = pytest.importorskip("joblib")

from joblib import Parallel, delayed, parallel_config  # noqa: E402
from joblib.parallel import BatchedCalls  # noqa: E402

import headrace as hr  # noqa: E402
import headrace.integrations.joblib as backend  # noqa: E402

HERE = Path(__file__).parent
TIMEOUT_S = 30


def run_suite(*options):
    """Run joblib's tests of `Parallel` on headrace; how many passed."""
    pytest.importorskip("numpy")
    file = Path(joblib.__file__).parent / "test" / "test_parallel.py"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "joblib_on_headrace", "-p", "no:cacheprovider"),
            *("-W", "ignore", "-c", os.devnull, "--rootdir", str(file.parent), "--timeout", "120", *options, str(file)),
        ],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@pytest.mark.timeout(120)
def test_joblibs_own_tests_of_calls_and_errors_pass():
    assert run_suite("-k", "loky and (parallel or error or exception or dispatch or batch) and not nested") > 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_joblibs_own_tests_pass():
    assert run_suite() > 650


def square(x):
    return x * x


def slow_square(x):
    time.sleep(0.1)
    return x * x


def end_worker(x):
    if x == 3:
        os._exit(7)
    return x


def where(*_args):
    return os.getpid()


@pytest.fixture(params=["processes", "threads"])
def mode(request):
    with parallel_config(backend="headrace", n_jobs=2, mode=request.param):
        yield request.param


def test_calls_come_back_in_order(mode):
    assert Parallel()(delayed(square)(x) for x in range(1_000)) == [x * x for x in range(1_000)]
    assert list(Parallel(return_as="generator")(delayed(square)(x) for x in range(10))) == [x * x for x in range(10)]
    unordered = Parallel(return_as="generator_unordered")(delayed(square)(x) for x in range(10))
    assert sorted(unordered) == [x * x for x in range(10)]


def test_what_a_call_raises_is_raised_and_the_next_works(mode):
    with pytest.raises(ZeroDivisionError):
        Parallel()(delayed(divmod)(1, x) for x in range(10))
    assert Parallel()(delayed(square)(x) for x in range(10)) == [x * x for x in range(10)]


def test_an_argument_that_cannot_travel_fails_its_parallel_wherever_it_stands():
    arguments = [*range(100), threading.Lock()]
    with parallel_config(backend="headrace", n_jobs=2):
        with pytest.raises(hr.ArgumentNotPicklable, match="lock"):
            Parallel()(delayed(repr)(x) for x in arguments)
        assert Parallel()(delayed(square)(x) for x in range(10)) == [x * x for x in range(10)]


def test_what_the_iterable_raises_is_raised_at_once(mode):
    def tasks():
        yield delayed(square)(1)
        yield delayed(time.sleep)(TIMEOUT_S)  # runs, while the next one is asked for
        yield from (delayed(square)(x) for x in range(20))
        raise ValueError("no more")

    started_s = time.monotonic()
    with pytest.raises(ValueError, match="no more"):
        Parallel(batch_size=1)(tasks())
    if mode == "processes":  # a thread cannot be interrupted
        assert time.monotonic() - started_s < TIMEOUT_S


def test_a_parallel_within_the_life_of_a_generator_waits_for_its_own_calls_alone():
    with parallel_config(backend="headrace", n_jobs=2):
        squares = Parallel(return_as="generator")(delayed(square)(x) for x in count())
        with pytest.raises(ZeroDivisionError):
            Parallel()(delayed(divmod)(1, x) for x in range(10))
        assert Parallel()(delayed(square)(x) for x in range(10)) == [x * x for x in range(10)]
        assert [next(squares) for _ in range(200)] == [x * x for x in range(200)]
        with pytest.warns(UserWarning, match="cancelled|not used"):
            squares.close()


def test_the_death_of_a_worker_fails_the_parallel_and_the_next_works():
    with parallel_config(backend="headrace", n_jobs=2):
        with pytest.raises(hr.WorkerDied):
            Parallel()(delayed(end_worker)(x) for x in range(10))
        assert Parallel()(delayed(square)(x) for x in range(10)) == [x * x for x in range(10)]


def test_a_batch_calls_back_once_however_it_ends():
    heard = []
    with hr.Client(workers=2) as client:
        joblibs = backend.HeadraceBackend(client, nesting_level=0)
        joblibs.configure(2)
        for fn, value in ((square, 2), (end_worker, 3), (divmod, 1), (repr, threading.Lock())):
            batch = BatchedCalls([(fn, (value,), {})], joblibs.get_nested_backend())
            with suppress(Exception):
                joblibs.submit(batch, callback=lambda future, fn=fn: heard.append(fn)).result(TIMEOUT_S)
        client.close()
    assert Counter(heard) == Counter([square, end_worker, divmod, repr])
    assert not joblibs._open


def test_a_list_is_there_without_a_look_each_10_ms(monkeypatch):
    looks = []
    sleep = time.sleep
    monkeypatch.setattr(joblib.parallel.time, "sleep", lambda seconds: looks.append(seconds) or sleep(seconds))
    with parallel_config(backend="headrace", n_jobs=2):
        assert Parallel()(delayed(slow_square)(x) for x in range(4)) == [0, 1, 4, 9]
        assert not looks
        assert Parallel(timeout=TIMEOUT_S)(delayed(slow_square)(x) for x in range(4)) == [0, 1, 4, 9]
        assert looks, "joblib itself waits for what must be there in time"


def test_a_client_of_ones_own_is_used_and_stays():
    with hr.Client(workers=2) as client:
        pids = {client.call(where).result(30) for _ in range(20)}
        with parallel_config(backend="headrace", client=client):
            seen = set(Parallel()(delayed(where)(x) for x in range(100)))
        assert seen & pids
        assert client.call(square, 3).result(30) == 9


def test_nested_parallels_work(mode):
    def outer(x):
        return sum(Parallel(n_jobs=2)(delayed(square)(y) for y in range(x)))

    assert Parallel()(delayed(outer)(x) for x in range(5)) == [sum(y * y for y in range(x)) for x in range(5)]


@pytest.mark.parametrize("by_name", [False, True])
def test_large_arguments_are_written_once(monkeypatch, by_name):
    np = pytest.importorskip("numpy")
    puts = []
    put = hr.Client.put
    monkeypatch.setattr(hr.Client, "put", lambda self, value: puts.append(value) or put(self, value))
    array = np.ones(1 << 18)
    with parallel_config(backend="headrace", n_jobs=2):
        one = delayed(np.sum)(a=array) if by_name else delayed(np.sum)(array)
        sums = Parallel(batch_size=1)(one for _ in range(20))
    assert sums == [1 << 18] * 20
    assert [value is array for value in puts] == [True]


def test_the_same_forest_grows_and_the_same_search_finds():
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    inputs, classes = make_classification(400, 10, random_state=0)

    def learn():
        forest = RandomForestClassifier(20, random_state=0).fit(inputs, classes)
        search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 3]}, cv=3).fit(
            inputs, classes
        )
        return (
            forest.predict_proba(inputs).tolist(),
            search.cv_results_["mean_test_score"].tolist(),
            search.best_params_,
        )

    alone = learn()
    with parallel_config(backend="headrace", n_jobs=2):
        assert learn() == alone


def test_importing_it_registers_it():
    assert backend.HeadraceBackend is joblib.parallel.BACKENDS["headrace"]
    backend.register("another name")
    assert joblib.parallel.BACKENDS.pop("another name") is backend.HeadraceBackend


def test_threads_with_other_numbers_of_jobs_do_not_disturb_each_other():
    def run(jobs):
        with parallel_config(backend="headrace", n_jobs=jobs):
            return [sum(Parallel()(delayed(square)(x) for x in range(50))) for _ in range(5)]

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, [2, 3, 2]))
    assert results == [[sum(x * x for x in range(50))] * 5] * 3
