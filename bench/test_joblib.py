"""What do joblib's calls cost on headrace, beside loky?

joblib's own share is in both, and is printed beside the figure: what its calls cost on a backend that calls nothing. It
looks for results every 10 ms, unless the backend waits in its place, as ours does.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

joblib = pytest.importorskip("joblib", reason="joblib is not installed: pip install '.[joblib]'")

from joblib import Parallel, delayed, parallel_config, register_parallel_backend  # noqa: E402
from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase  # noqa: E402

import headrace.integrations.joblib  # noqa: E402, F401  # registers the backend
from comparison import take_turns  # noqa: E402
from figures import times_faster  # noqa: E402
from workloads import inc  # noqa: E402

CALLS = 10_000
EXPECTED = list(range(1, CALLS + 1))


def run_on(backend):
    with parallel_config(backend=backend, n_jobs=2):
        return Parallel()(delayed(inc)(value) for value in range(CALLS))


def check(values):
    assert values == EXPECTED


class CallsNothing(AutoBatchingMixin, ParallelBackendBase):
    """A backend that has every batch done at once."""

    supports_retrieve_callback = True

    def configure(self, n_jobs=1, parallel=None, **_options):
        self.parallel = parallel
        self.thread = ThreadPoolExecutor(1)
        return n_jobs

    def effective_n_jobs(self, n_jobs):
        return n_jobs

    def submit(self, func, callback=None):
        future = self.thread.submit([None].__mul__, len(func))
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future):
        return future.result()


def floor_us():
    """Microseconds a call that joblib takes by itself, its last wait of up to 10 ms included."""
    register_parallel_backend("nothing", CallsNothing)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        run_on("nothing")
        times.append(time.perf_counter() - start)
    return statistics.median(times) / CALLS * 1e6


def test_calls(benchmark, rounds, record):
    turns = take_turns(
        benchmark, lambda: run_on("headrace"), lambda: run_on("loky"), rounds=3 * rounds, check=check, warm_up_rounds=3
    )
    question = f"joblib: {CALLS:,} delayed(inc)(i)"
    detail = f"joblib takes {floor_us():.3g} µs on a backend that calls nothing, and looks for results every 10 ms"
    record(times_faster(question, turns, tasks=CALLS, bar=1, aim=1.5, against="loky", detail=detail))


def test_grid_search(benchmark, rounds, record):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    inputs, classes = make_classification(200, 10, random_state=0)
    grid = {"max_depth": list(range(1, 51)), "min_samples_leaf": [1, 2]}

    def search(backend):
        with parallel_config(backend=backend, n_jobs=2):
            return GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=5).fit(inputs, classes).best_params_

    answers = []
    turns = take_turns(
        benchmark, lambda: search("headrace"), lambda: search("loky"), rounds=rounds, check=answers.append
    )
    assert all(answer == answers[0] for answer in answers)
    record(times_faster("joblib: GridSearchCV, 500 fits of small trees", turns, tasks=500, bar=1, against="loky"))
