"""What do joblib's calls cost on headrace, beside loky?

joblib's own share is in both: 2 to 3 µs a call, and a look each 10 ms.
"""

import pytest

joblib = pytest.importorskip("joblib", reason="joblib is not installed: pip install '.[joblib]'")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

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


def test_calls(benchmark, rounds, record):
    turns = take_turns(
        benchmark, lambda: run_on("headrace"), lambda: run_on("loky"), rounds=3 * rounds, check=check, warm_up_rounds=3
    )
    question = f"joblib: {CALLS:,} delayed(inc)(i)"
    record(times_faster(question, turns, tasks=CALLS, bar=1, aim=1.5, against="loky"))


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
