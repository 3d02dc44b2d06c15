"""A failed attempt is followed by another one: how often, when, and after which failures."""

import itertools
import signal
import threading
import time

import pytest
from client_tasks import Sour, inc
from policy_tasks import (
    Unloadable,
    die_first,
    fail_as,
    fail_first,
    is_broken,
    is_mild,
    lines,
    say_failures,
    succeed,
    times,
)

import headrace as hr
from headrace.statistics import Progress

TIMEOUT_S = 30
MODES = ["processes", "threads", "sync"]


@pytest.fixture(scope="module", params=MODES)
def client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def processes():
    with hr.Client(workers=2) as client:
        yield client


def whose(error):
    """The note on whose exception it is."""
    (note,) = [note for note in error.__notes__ if "raised by task" in note]
    return note


# -- how often ---------------------------------------------------------------------------------------------------------


def test_a_call_is_tried_until_it_succeeds(client, path):
    future = client.call(hr.task(fail_first, retries=3), path, 2, "value")
    assert future.result(TIMEOUT_S) == "value"
    assert len(lines(path)) == 3


def test_the_last_failure_is_raised_and_says_how_many_there_were(client, path):
    future = client.call(hr.task(fail_first, retries=2), path, 9)
    with pytest.raises(Sour) as caught:
        future.result(TIMEOUT_S)
    assert caught.value.degree == 3
    assert whose(caught.value).endswith(" after 2 retries")
    assert len(lines(path)) == 3


def test_without_the_option_there_is_one_attempt(client, path):
    future = client.call(fail_first, path, 1)
    with pytest.raises(Sour) as caught:
        future.result(TIMEOUT_S)
    assert "retr" not in whose(caught.value)
    assert len(lines(path)) == 1


def test_a_graph_waits_for_the_attempt_that_succeeds(client, path, tmp_path):
    graph = hr.Graph()
    before = graph.add(succeed, str(tmp_path / "before"))
    flaky = graph.add(hr.task(fail_first, retries=3), path, 2, 10, before)
    beside = graph.add(succeed, str(tmp_path / "beside"), before)
    after = graph.add(inc, flaky)
    run = client.submit(graph, keep=[after, beside])
    assert run.results(TIMEOUT_S) == [11, 1]
    assert len(lines(path)) == 3
    # What it needs, and what stands beside it, ran once.
    assert len(lines(tmp_path / "before")) == len(lines(tmp_path / "beside")) == 1
    assert (run.statistics().retries, run.statistics().failed) == (2, 0)


def test_a_failure_for_good_skips_what_needs_it(client, path):
    graph = hr.Graph()
    flaky = graph.add(hr.task(fail_first, retries=1), path, 9)
    run = client.submit(graph, keep=[flaky, graph.add(inc, flaky)])
    assert run.wait(TIMEOUT_S)
    with pytest.raises(hr.UpstreamFailed) as caught:
        run.result("inc-1")
    assert whose(caught.value.__cause__).endswith(" after 1 retry")
    statistics = run.statistics()
    assert (statistics.retries, statistics.failed, statistics.skipped) == (1, 1, 1)


def test_many_tasks_are_tried_again_each_by_itself(client, tmp_path):
    graph = hr.Graph()
    flaky = hr.task(fail_first, retries=2)
    nodes = [graph.add(flaky, str(tmp_path / str(number)), number % 3, number) for number in range(60)]
    assert client.submit(graph, keep=nodes).results(TIMEOUT_S) == list(range(60))
    assert [len(lines(tmp_path / str(number))) for number in range(60)] == [1 + number % 3 for number in range(60)]


def test_a_task_knows_how_many_attempts_failed_before(client, path):
    assert client.call(hr.task(say_failures, retries=5), path, 2).result(TIMEOUT_S) == 2
    assert lines(path) == ["0", "1", "2"]


def test_a_crash_costs_no_retry(processes, path):
    assert processes.call(hr.task(die_first, retries=1), path).result(TIMEOUT_S) == 3


def test_a_result_that_cannot_travel_is_a_failure_like_any_other(processes, path):
    future = processes.call(hr.task(lambda path: (succeed(path), threading.Lock())[1], retries=1), path)
    with pytest.raises(hr.ResultNotPicklable) as caught:
        future.result(TIMEOUT_S)
    assert whose(caught.value).endswith(" after 1 retry")
    assert len(lines(path)) == 2


# -- after which failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_on", [KeyError, (OSError, LookupError), lambda error: error.args == ("k",)])
def test_only_some_failures_are_worth_a_retry(client, tmp_path, retry_on):
    fail = hr.task(fail_as, retries=2, retry_on=retry_on)
    for error, attempts in ((KeyError("k"), 3), (ValueError("v"), 1)):
        path = str(tmp_path / type(error).__name__)
        with pytest.raises(type(error)):
            client.call(fail, path, error).result(TIMEOUT_S)
        assert len(lines(path)) == attempts


def test_the_question_is_asked_of_each_failure(client, path):
    with pytest.raises(Sour) as caught:
        client.call(hr.task(fail_first, retries=9, retry_on=is_mild), path, 9).result(TIMEOUT_S)
    assert caught.value.degree == 3
    assert len(lines(path)) == 3


def test_a_question_that_raises_makes_the_failure_final_and_is_noted(client, path):
    with pytest.raises(Sour) as caught:
        client.call(hr.task(fail_first, retries=9, retry_on=is_broken), path, 9).result(TIMEOUT_S)
    assert any("retry_on itself raised RuntimeError: the question itself" in note for note in caught.value.__notes__)
    assert len(lines(path)) == 1


def test_tasks_of_a_graph_are_asked_about(client, tmp_path):
    graph = hr.Graph()
    fail = hr.task(fail_as, retries=1, retry_on=KeyError)
    paths = [str(tmp_path / name) for name in "ab"]
    nodes = [graph.add(fail, paths[0], KeyError()), graph.add(fail, paths[1], ValueError())]
    assert client.submit(graph, keep=nodes).wait(TIMEOUT_S)
    assert [len(lines(path)) for path in paths] == [2, 1]


def test_a_function_that_cannot_be_loaded_is_asked_about(processes, path):
    for retry_on, attempts in ((ValueError, 1), (KeyError, 4)):
        future = processes.call(hr.task(Unloadable(path), retries=2, retry_on=retry_on))
        with pytest.raises(KeyError, match="loaded") as caught:
            future.result(TIMEOUT_S)
        assert any("while headrace loaded the function" in note for note in caught.value.__notes__)
        assert len(lines(path)) == attempts


def test_a_function_with_a_long_pickle_is_asked_about(client, path):
    ballast = "x" * 100_000
    fail = hr.task(lambda path: fail_as(path, KeyError(len(ballast))), retries=5, retry_on=ValueError)
    with pytest.raises(KeyError):
        client.call(fail, path).result(TIMEOUT_S)
    assert len(lines(path)) == 1


def test_a_question_that_cannot_travel_is_refused_at_once(processes):
    lock = threading.Lock()
    with pytest.raises(hr.ArgumentNotPicklable, match=r"retry_on.*lock"):
        processes.call(hr.task(inc, retries=1, retry_on=lambda error: lock), 1)


# -- when --------------------------------------------------------------------------------------------------------------


def test_pauses_double_up_to_the_longest(client, path):
    future = client.call(hr.task(fail_first, retries=3, backoff=(0.1, 0.2)), path, 3, "value")
    assert future.result(TIMEOUT_S) == "value"
    at = times(path)
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert len(pauses) == 3
    for pause, mean in zip(pauses, (0.1, 0.2, 0.2), strict=True):
        assert 0.75 * mean <= pause < 1.25 * mean + 1, "up to a quarter less or more, and what a busy machine adds"


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_others_run_during_a_pause_and_the_task_waits(client, path):
    graph = hr.Graph()
    node = graph.add(hr.task(fail_first, retries=1, backoff=2), path, 1)
    run = client.submit(graph)
    deadline = time.monotonic() + TIMEOUT_S
    while run.statistics().retries == 0:
        assert time.monotonic() < deadline
    assert client.call(inc, 1).result(TIMEOUT_S) == 2
    assert run.progress() == Progress(waiting=1)
    assert not run.done()
    assert run.result(node, timeout=TIMEOUT_S) is None
    assert len(lines(path)) == 2


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_task_in_its_pause_is_cancelled_at_once(client, path):
    future = client.call(hr.task(fail_first, retries=1, backoff=60), path, 1)
    deadline = time.monotonic() + TIMEOUT_S
    before = client.statistics().retries
    while client.statistics().retries == before and not lines(path):
        assert time.monotonic() < deadline
    assert future.cancel()
    with pytest.raises(hr.CancelledError) as caught:
        future.result(TIMEOUT_S)
    assert caught.value.reason == "user"
    assert len(lines(path)) == 1


def test_ctrl_c_ends_a_pause_of_mode_sync(path):
    def interrupt():
        while not lines(path):
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with hr.Client(mode="sync") as client:
        graph = hr.Graph()
        graph.add(hr.task(fail_first, retries=1, backoff=60), path, 1)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt) as held:  # and with it the run, which has a task in its pause
            client.submit(graph)
        thread.join()
        assert held
        assert client.call(inc, 1).result(TIMEOUT_S) == 2
    assert len(lines(path)) == 1
