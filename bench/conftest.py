"""`python -m pytest bench` measures everything; `-m quick` the part that CI runs.

Every benchmark checks its answers and fails when one is wrong. Whether a figure reaches its bar is printed beside it
and fails nothing, unless `--enforce-bars` is given: a shared machine is no judge of speed.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import workloads
from figures import Figure
from headrace.bench.machine_card import machine_card
from report import markdown, save

BENCH = Path(__file__).parent
WORKERS = 2


def pytest_addoption(parser):
    group = parser.getgroup("headrace")
    group.addoption("--rounds", type=int, default=9, help="pairs of turns in each comparison (default 9)")
    group.addoption("--enforce-bars", action="store_true", help="fail where a figure is below its bar")
    group.addoption("--save-figures", action="store_true", help="write the table and its samples to bench/results")
    group.addoption("--plot", action="store_true", help="draw docs/crossover.svg from the figures of test_crossover.py")


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: the part of the benchmarks that CI runs")
    config.stash[FIGURES] = []
    config.stash[CARD] = machine_card()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(BENCH):
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash[FIGURES]
    if not figures:
        return
    terminalreporter.section("figures")
    terminalreporter.write(markdown(figures, config.stash[CARD]))
    if config.getoption("--save-figures"):
        terminalreporter.write_line(f"saved: {save(figures, config.stash[CARD], BENCH / 'results')}")


@pytest.fixture
def record(request):
    """Put a figure into the table, and hold it against its bar if that was asked for."""

    def record(figure: Figure) -> None:
        request.config.stash[FIGURES].append(figure)
        if request.config.getoption("--enforce-bars"):
            assert figure.met, f"{figure.question}: {figure.score:.4g} {figure.unit}, bar {figure.bar:g}"

    return record


@pytest.fixture
def card(request) -> dict[str, str]:
    """What the figures are measured on."""
    return request.config.stash[CARD]


@pytest.fixture
def rounds(request) -> int:
    """How many pairs of turns a comparison takes."""
    return request.config.getoption("--rounds")


@pytest.fixture(scope="session")
def pool():
    """The reference, warm. It comes before the client, because its workers are forked."""
    with ProcessPoolExecutor(WORKERS) as pool:
        assert list(pool.map(workloads.inc, range(100))) == list(range(1, 101))
        yield pool


@pytest.fixture(scope="session")
def client(pool):
    """Ours, warm: the embedded default with as many workers as the reference."""
    import headrace

    with headrace.Client(workers=WORKERS) as client:
        graph = headrace.Graph()
        graph.map(workloads.inc, range(1_000))
        assert client.submit(graph).results() == list(range(1, 1_001))
        yield client


FIGURES = pytest.StashKey[list[Figure]]()
CARD = pytest.StashKey[dict[str, str]]()
