"""What a run does about failures: it goes on or stops, ends at its deadline, and can be made good."""

import time

import pytest
from client_tasks import Sour, add, fail, inc, total
from outside import wait_until
from policy_tasks import fail_as, fail_first, hold, lines, sleep, succeed

import headrace as hr

TIMEOUT_S = 30


@pytest.fixture(scope="module", params=["processes", "threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param, grace_s=0.5) as client:
        yield client


def kinds(outcomes):
    """What became of tasks: a value, or the name of the error, with its reason if it was cancelled."""
    told = [
        f"{type(one).__name__}({one.reason})" if isinstance(one, hr.CancelledError) else type(one).__name__
        for one in outcomes
    ]
    return [one if not isinstance(one, BaseException) else text for one, text in zip(outcomes, told, strict=True)]


# -- on_error ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_after_a_failure_unless_told_otherwise(client, path):
    graph = hr.Graph()
    bad = graph.add(fail, 1)
    nodes = [bad, graph.add(inc, bad), *graph.map(inc, range(20))]
    run = client.submit(graph, keep=nodes)
    assert kinds(run.gather(errors="return", timeout=TIMEOUT_S)) == ["Sour", "UpstreamFailed", *range(1, 21)]
    statistics = run.statistics()
    assert (statistics.failed, statistics.skipped, statistics.done) == (1, 1, 20)


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_run_that_is_to_stop_does_and_keeps_what_it_has(client, path, gate, tmp_path):
    graph = hr.Graph()
    done = graph.add(inc, 1)
    running = graph.add(hold, path, str(gate), None, done)
    bad = graph.add(hr.task(fail_as), str(tmp_path / "bad"), Sour(1), done)
    skipped = graph.add(inc, bad)
    waiting = graph.add(succeed, str(tmp_path / "never"), running)
    # It fails once the other one runs.
    run = client.submit(graph, keep=[done, running, bad, skipped, waiting], on_error="stop")
    assert run.wait(TIMEOUT_S)
    assert kinds(run.gather(errors="return")) == [
        2,
        "CancelledError(run-failed)",
        "Sour",
        "UpstreamFailed",
        "CancelledError(run-failed)",
    ]
    assert lines(tmp_path / "never") == []
    assert client.call(inc, 1).result(TIMEOUT_S) == 2


def test_a_failure_that_a_retry_makes_good_stops_nothing(client, path):
    graph = hr.Graph()
    graph.add(hr.task(fail_first, retries=2), path, 2, "value")
    run = client.submit(graph, on_error="stop")
    assert run.result(timeout=TIMEOUT_S) == "value"


def test_the_last_retry_stops_the_run(client, path, tmp_path):
    graph = hr.Graph()
    bad = graph.add(hr.task(fail_first, retries=1), path, 9)
    chain = graph.add(inc, 0)
    for _ in range(200):
        chain = graph.add(add, chain, graph.add(sleep, str(tmp_path / "slow"), 0.05, 0, chain))
    run = client.submit(graph, keep=[bad, chain], on_error="stop")
    assert run.wait(TIMEOUT_S)
    assert kinds(run.gather(errors="return")) == ["Sour", "CancelledError(run-failed)"]
    assert len(lines(path)) == 2
    assert run.statistics().cancelled > 0


def test_a_stopped_run_leaves_others_alone(client):
    graph = hr.Graph()
    graph.add(fail, 1)
    stopping = client.submit(graph, on_error="stop")
    other = hr.Graph()
    nodes = other.map(inc, range(50))
    assert client.submit(other, keep=nodes).results(TIMEOUT_S) == list(range(1, 51))
    with pytest.raises(Sour):
        stopping.result(timeout=TIMEOUT_S)


def test_a_run_tells_what_went_wrong_first(client, tmp_path):
    graph = hr.Graph()
    bad = graph.add(fail_as, str(tmp_path / "bad"), Sour(7))
    behind = graph.add(inc, bad)
    cancelled = graph.add(inc, graph.add(sleep, str(tmp_path / "slow"), 0.05, 0, graph.add(inc, 0)))
    for keep in ([behind, cancelled], [cancelled, behind], [bad, behind, cancelled]):
        run = client.submit(graph, keep=keep, on_error="stop")
        error = run.failure(TIMEOUT_S)
        assert (type(error), error.degree) == (Sour, 7)
    with pytest.raises(Sour):
        run.result(bad)
    assert run.failure().degree == 7, "reading a failure does not take it away"
    run.release()
    with pytest.raises(hr.ResultReleased):
        run.failure()


def test_a_run_without_a_failure_tells_none(client):
    graph = hr.Graph()
    graph.map(inc, range(20))
    assert client.submit(graph).failure(TIMEOUT_S) is None
    run = client.submit(graph)
    run.cancel()
    assert run.failure(TIMEOUT_S) is None


def test_a_run_whose_tasks_were_skipped_tells_the_failure_of_the_other_run(client):
    graph, behind = hr.Graph(), hr.Graph()
    bad = graph.add(fail, 3)
    run = client.submit(graph)
    node = behind.add(inc, run.ref(bad))
    assert client.submit(behind, keep=[node]).failure(TIMEOUT_S).degree == 3


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_waiting_for_a_failure_has_a_timeout(client, path, gate):
    graph = hr.Graph()
    graph.add(hold, path, str(gate), None)
    run = client.submit(graph)
    with pytest.raises(TimeoutError, match="has not ended"):
        run.failure(0.01)
    gate.touch()
    assert run.failure(TIMEOUT_S) is None


# -- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_run_ends_at_its_deadline_and_keeps_what_it_has(client, path, gate, tmp_path):
    graph = hr.Graph()
    done = graph.add(inc, 1)
    running = graph.add(hold, path, str(gate), None, done)
    waiting = graph.add(succeed, str(tmp_path / "never"), running)
    started = time.monotonic()
    run = client.submit(graph, keep=[done, running, waiting], deadline_s=0.5)
    assert run.wait(TIMEOUT_S)
    assert time.monotonic() - started >= 0.5
    late = "CancelledError(deadline)"
    assert kinds(run.gather(errors="return")) == [2, late, late]
    assert lines(tmp_path / "never") == []
    gate.touch()
    assert client.call(inc, 1).result(TIMEOUT_S) == 2


def test_a_run_that_ends_in_time_is_left_alone(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(10))
    assert client.submit(graph, keep=nodes, deadline_s=60).results(TIMEOUT_S) == list(range(1, 11))


def test_a_deadline_ends_mode_sync_between_two_tasks(tmp_path):
    with hr.Client(mode="sync") as client:
        graph = hr.Graph()
        chain = graph.add(sleep, str(tmp_path / "effects"), 0.1)
        for _ in range(100):
            chain = graph.add(sleep, str(tmp_path / "effects"), 0.1, None, chain)
        run = client.submit(graph, deadline_s=0.35)
        with pytest.raises(hr.CancelledError) as caught:
            run.result()
        assert caught.value.reason == "deadline"
        assert 1 <= len(lines(tmp_path / "effects")) <= 5


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_a_deadline_ends_a_pause(client, path):
    graph = hr.Graph()
    graph.add(hr.task(fail_first, retries=9, backoff=100), path, 9)
    run = client.submit(graph, deadline_s=0.3)
    assert run.wait(TIMEOUT_S)
    assert kinds(run.gather(errors="return")) == ["CancelledError(deadline)"]


@pytest.mark.parametrize(
    "terms", [{"deadline_s": 0}, {"deadline_s": "1"}, {"on_error": "panic"}, {"priority": 1.5}], ids=repr
)
def test_terms_that_make_no_sense_are_refused(client, terms):
    with pytest.raises(hr.UsageError, match=next(iter(terms))):
        client.submit(hr.Graph(), **terms)


# -- gather ------------------------------------------------------------------------------------------------------------


def test_gather_gives_results_in_the_order_asked_for(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(6))
    last = graph.add(total, *nodes)
    run = client.submit(graph, keep=[nodes, last])
    assert run.gather(last, nodes[0], "inc-3", timeout=TIMEOUT_S) == [21, 1, 4]
    assert run.gather(nodes[1:3], [last, [nodes[5]]]) == [[2, 3], [21, [6]]]
    assert run.gather() == [1, 2, 3, 4, 5, 6, 21]


def test_gather_raises_the_first_error_or_returns_them(client):
    graph = hr.Graph()
    good, sour, sourer = graph.add(inc, 1), graph.add(fail, 1), graph.add(fail, 2)
    run = client.submit(graph, keep=[good, sour, sourer])
    with pytest.raises(Sour) as caught:
        run.gather(good, sourer, sour, timeout=TIMEOUT_S)
    assert caught.value.degree == 2
    outcomes = run.gather(errors="return")
    assert kinds(outcomes) == [2, "Sour", "Sour"]
    assert outcomes[2] is caught.value


def test_gather_returns_no_mistakes_of_the_caller(client):
    graph = hr.Graph()
    node = graph.add(inc, graph.add(inc, 1))
    run = client.submit(graph, keep=[node])
    for wrong, kind in (("inc-0", hr.NotKept), ("nonsense", hr.GraphError)):
        with pytest.raises(kind):
            run.gather(wrong, errors="return")
    with pytest.raises(hr.UsageError, match="errors takes"):
        run.gather(errors="ignore")
    assert run.gather(timeout=TIMEOUT_S) == [3]


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_gather_waits_no_longer_than_asked(client, path, gate):
    graph = hr.Graph()
    first, second = graph.add(inc, 1), graph.add(hold, path, str(gate))
    run = client.submit(graph, keep=[first, second])
    with pytest.raises(TimeoutError, match="hold-1"):
        run.gather(timeout=0.05)
    futures = [client.call(inc, 1), client.call(hold, path, str(gate))]
    with pytest.raises(TimeoutError):
        hr.gather(futures, errors="return", timeout=0.05)
    gate.touch()
    assert run.gather(timeout=TIMEOUT_S) == hr.gather(futures, timeout=TIMEOUT_S) == [2, None]


def test_gather_of_calls(client):
    futures = [client.call(inc, 1), client.call(fail, 2), client.call(inc, 3)]
    with pytest.raises(Sour):
        hr.gather(futures, timeout=TIMEOUT_S)
    assert kinds(hr.gather(iter(futures), errors="return")) == [2, "Sour", 4]
    assert hr.gather([]) == []


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_gather_returns_cancelled_calls(client, path, gate):
    future = client.call(hold, path, str(gate))
    wait_until(lambda: lines(path))
    future.cancel()
    gate.touch()
    outcomes = hr.gather([future, client.call(inc, 1)], errors="return", timeout=TIMEOUT_S)
    assert kinds(outcomes) == ["CancelledError(user)", 2]
    with pytest.raises(hr.CancelledError):
        hr.gather([future])


# -- resubmit ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def half_failed(client, tmp_path):
    """A run of which some tasks failed, and would succeed now; with the graph's nodes and the files of effects."""
    paths = {name: str(tmp_path / name) for name in ("source", "kept", "flaky", "after", "beside")}
    graph = hr.Graph()
    source = graph.add(succeed, paths["source"])
    kept = graph.add(succeed, paths["kept"], source)
    flaky = graph.add(fail_first, paths["flaky"], 1, 40, source)
    after = graph.add(hr.task(total, key="after"), flaky, kept, graph.add(succeed, paths["after"], flaky))
    beside = graph.add(succeed, paths["beside"])
    run = client.submit(graph, keep=[kept, flaky, after, beside])
    assert run.wait(TIMEOUT_S)
    return run, (source, kept, flaky, after, beside), paths


def counts(paths):
    return {name: len(lines(path)) for name, path in paths.items()}


def test_only_what_failed_runs_again_with_what_it_needs(client, half_failed):
    run, (_, kept, flaky, after, beside), paths = half_failed
    assert kinds(run.gather(errors="return")) == [1, "Sour", "UpstreamFailed", 1]
    assert counts(paths) == {"source": 1, "kept": 1, "flaky": 1, "after": 0, "beside": 1}
    again = run.resubmit()
    assert again.gather(kept, flaky, after, beside, timeout=TIMEOUT_S) == [1, 40, 42, 1]
    # The source is needed again, and nobody kept its result.
    assert counts(paths) == {"source": 2, "kept": 1, "flaky": 2, "after": 1, "beside": 1}
    assert (again.statistics().done, again.statistics().failed) == (6, 0)
    assert again.graph is run.graph
    assert again.result("after") == 42
    assert kinds(run.gather(errors="return")) == [1, "Sour", "UpstreamFailed", 1], "the old run is what it was"


def test_a_run_that_was_made_good_stands_by_itself(client, half_failed):
    run, (_, kept, *_), _ = half_failed
    again = run.resubmit()
    assert again.wait(TIMEOUT_S)
    run.release()
    assert again.results() == [1, 40, 42, 1]
    assert client.call(inc, again.ref(kept)).result(TIMEOUT_S) == 2
    once_more = again.resubmit()
    assert once_more.results(TIMEOUT_S) == [1, 40, 42, 1]


def test_everything_runs_again_if_wanted(client, half_failed):
    run, _, paths = half_failed
    again = run.resubmit(failed_only=False)
    assert again.results(TIMEOUT_S)[1:3] == [40, 43]
    assert counts(paths) == {"source": 2, "kept": 2, "flaky": 2, "after": 1, "beside": 2}


def test_a_result_that_was_let_go_of_is_made_again(client, half_failed):
    run, (_, kept, *_), paths = half_failed
    run._release_one(kept.index)
    again = run.resubmit()
    assert again.results(TIMEOUT_S)[0] == 2
    assert counts(paths)["kept"] == 2


@pytest.mark.parametrize("client", ["processes", "threads"], indirect=True)
def test_what_was_cancelled_runs_again(client, path, gate, tmp_path):
    graph = hr.Graph()
    first = graph.add(inc, 1)
    node = graph.add(hold, path, str(gate), "value", first)
    last = graph.add(succeed, str(tmp_path / "last"), node)
    run = client.submit(graph, keep=[first, node, last])
    wait_until(lambda: lines(path))
    with pytest.raises(hr.UsageError, match="has not ended"):
        run.resubmit()
    run.cancel()
    assert run.wait(TIMEOUT_S)
    gate.touch()
    assert run.resubmit().results(TIMEOUT_S) == [2, "value", 1]


def test_tasks_that_were_added_later_are_no_part_of_it(client, path):
    graph = hr.Graph()
    node = graph.add(fail_first, path, 1, "value")
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    later = graph.add(inc, 1)
    again = run.resubmit()
    assert again.result(node, timeout=TIMEOUT_S) == "value"
    with pytest.raises(hr.GraphError, match="added after"):
        again.result(later)
    assert again.statistics().done == 1


def test_a_graph_that_takes_results_of_others_is_made_good(client, path):
    value = client.put([1, 2, 3])
    call = client.call(inc, 1)
    graph = hr.Graph()
    made = graph.add(total, call, graph.add(len, value))
    graph.add(fail_first, path, 1, "value", made, value)
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    assert run.resubmit().result(timeout=TIMEOUT_S) == "value"


def test_options_and_terms_are_what_they_were(client, path):
    graph = hr.Graph()
    graph.add(hr.task(fail_first, retries=1, key="mine"), path, 3, "value")
    run = client.submit(graph, on_error="stop", deadline_s=60)
    assert run.wait(TIMEOUT_S)
    assert len(lines(path)) == 2
    again = run.resubmit()
    assert again.result("mine", timeout=TIMEOUT_S) == "value"
    assert len(lines(path)) == 4
    assert again._terms == run._terms


def test_large_arguments_and_results_are_made_good(client, path):
    large = bytes(2 << 20)
    graph = hr.Graph()
    kept = graph.add(bytes.upper, large)
    flaky = graph.add(fail_first, path, 1, large, kept)
    run = client.submit(graph, keep=[kept, flaky])
    assert run.wait(TIMEOUT_S)
    assert run.resubmit().gather(timeout=TIMEOUT_S) == [large, large]


def test_what_was_written_to_a_large_buffer_since_counts(client, path):
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(1 << 18)
    graph = hr.Graph()
    flaky = graph.add(fail_first, path, 1, array)
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    array[:] = 1
    assert run.resubmit().result(flaky, timeout=TIMEOUT_S).sum() == 1 << 18


@pytest.mark.parametrize("client", ["threads", "sync"], indirect=True)
def test_a_graph_by_reference_is_made_good(client, path):
    thing = object()
    graph = hr.Graph(by_reference=True)
    kept = graph.add(lambda it: it, thing)
    flaky = graph.add(fail_first, path, 1, thing, kept)
    run = client.submit(graph, keep=[kept, flaky])
    assert run.wait(TIMEOUT_S)
    assert all(result is thing for result in run.resubmit().gather(timeout=TIMEOUT_S))


def test_tasks_of_a_subgraph_keep_their_keys(client, path):
    graph = hr.Graph()
    graph.map(inc, range(5))
    flaky = graph.add(fail_first, path, 1, "value", graph.add(inc, 1))
    part = graph.subgraph([flaky, "inc-2"])
    run = client.submit(part, keep=["inc-2", flaky.key])
    assert run.wait(TIMEOUT_S)
    again = run.resubmit()
    assert (again.result("inc-2", timeout=TIMEOUT_S), again.result(flaky.key)) == (3, "value")


def test_a_released_run_cannot_be_made_good(client, half_failed):
    run, *_ = half_failed
    run.release()
    with pytest.raises(hr.ResultReleased, match="submit the graph again"):
        run.resubmit()


def test_a_wide_graph_is_made_good(client, tmp_path):
    graph = hr.Graph()
    middle = graph.map(inc, range(3_000))
    flaky = [
        graph.add(fail_first, str(tmp_path / str(number)), number % 2, number, middle[number]) for number in range(20)
    ]
    sums = [graph.add(total, *middle[start : start + 100]) for start in range(0, 3_000, 100)]
    run = client.submit(graph, keep=[flaky, sums])
    assert run.wait(TIMEOUT_S)
    assert run.statistics().failed == 10
    again = run.resubmit()
    assert again.gather(flaky, timeout=TIMEOUT_S) == [list(range(20))]
    assert again.gather(sums) == run.gather(sums)
    assert [len(lines(tmp_path / str(number))) for number in range(20)] == [1 + number % 2 for number in range(20)]
