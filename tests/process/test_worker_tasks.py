"""A worker runs what it is leased and says what became of it."""

import operator
import sys

import pytest
from broker_double import (
    DONE,
    DONE_HELD,
    FAILED,
    FORGET,
    HEARTBEAT,
    HELLO,
    HOLD_VALUE,
    LOST,
    REPORT_VALUE,
    RETURNED,
    VALUE,
    Broker,
    Dep,
    Piece,
    Task,
    failure,
    u32s,
    written,
)
from sample_tasks import (
    Holder,
    Unruly,
    append_to,
    arguments,
    ask_in_a_thread,
    async_generator,
    client_path,
    coroutine,
    generate,
    inc,
    main_names,
    raise_long,
    raises,
    who_am_i,
)

import headrace


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as broker:
        broker.greet()
        yield broker
        assert broker.hears_nothing()


def test_hello_says_who_it_is(tmp_path):
    with Broker(tmp_path) as broker:
        hello = broker.greet()
        version = ".".join(map(str, sys.version_info[:3]))
        assert hello == [HELLO, 1, 2, headrace.__version__, version, 0, 0, 1, broker.process.pid]


def test_a_frame_of_leases_is_run_in_order(broker):
    leases = broker.lease(*(Task(inc, (number,)) for number in range(300)))
    report = broker.reports(300)
    assert [(entry.task, entry.attempt) for entry in report.entries] == leases
    assert report.values() == list(range(1, 301))
    assert {entry.verdict for entry in report.entries} == {DONE}
    assert {row.function for row in report.timed} == {7}
    assert sum(row.calls for row in report.timed) == 300
    assert 0 < sum(row.ns for row in report.timed) < 60 * 10**9


def test_rows_of_calls_are_timed_function_by_function(broker):
    tasks = [Task(inc, (1,)), Task(inc, (1,)), Task(abs, (-1,)), Task(inc, (1,))]
    broker.lease(*tasks)
    report = broker.reports(4)
    assert [(row.function, row.calls) for row in merged(report.timed)] == [(7, 2), (8, 1), (7, 1)]
    assert report.values() == [2, 2, 1, 2]


def merged(timed):
    """Rows as they are if no report cut them."""
    rows = []
    for row in timed:
        if rows and rows[-1].function == row.function:
            row = row._replace(calls=rows.pop().calls + row.calls)
        rows.append(row)
    return rows


def test_results_pass_from_task_to_task_within_the_worker(broker):
    first, second, third = 10, 11, 12
    broker.lease(
        Task(inc, (1,), slot=first, flags=HOLD_VALUE),
        Task(operator.add, (Dep(0), Dep(1)), deps=(first, 90), slot=second, flags=HOLD_VALUE | REPORT_VALUE),
        Task(operator.mul, (Dep(0), Dep(0)), deps=(second,), slot=third),
        values=[(90, 40)],
    )
    report = broker.reports(3)
    assert report.verdicts() == [(first, DONE_HELD), (second, DONE), (third, DONE)]
    assert report.entries[0].blob == b""
    assert [entry.value for entry in report.entries[1:]] == [42, 42 * 42]


def test_each_consumer_gets_its_own_copy_of_a_mutable_result(broker):
    broker.lease(
        Task(list, ([[0]],), slot=1, flags=HOLD_VALUE),
        Task(append_to, (Dep(0), "a"), deps=(1,)),
        Task(append_to, (Dep(0), "b"), deps=(1,)),
    )
    assert [entry.value for entry in broker.entries(3)[1:]] == [[[0], "a"], [[0], "b"]]


def test_arguments_that_cite_one_result_twice_share_it(broker):
    broker.lease(
        Task(list, ([1],), slot=1, flags=HOLD_VALUE),
        Task(operator.is_, (Dep(0), Dep(0)), deps=(1,)),
    )
    assert broker.entries(2)[1].value is True


def test_long_texts_are_handed_on_as_they_are(broker):
    text = "é" * 5000
    broker.lease(
        Task(str, (text,), slot=1, flags=HOLD_VALUE),
        Task(id, (Dep(0),), deps=(1,)),
        Task(id, (Dep(0),), deps=(1,)),
    )
    _, one, other = broker.entries(3)
    assert one.value == other.value
    broker.say(FORGET, u32s([1]))
    assert broker.run(len, text).value == 5000


def test_a_value_is_sent_when_the_broker_asks(broker):
    ((task, attempt),) = broker.lease(Task(inc, (41,), flags=HOLD_VALUE))
    assert broker.report().verdicts() == [(task, DONE_HELD)]
    broker.recall([], fetch=[task, 777])
    entry, unknown = broker.report().entries
    assert (entry.task, entry.attempt, entry.verdict, entry.value) == (task, attempt, VALUE, 42)
    assert (unknown.task, unknown.verdict) == (777, LOST)
    broker.say(FORGET, u32s([task]))
    broker.recall([], fetch=[task])
    assert broker.report().verdicts() == [(task, LOST)]


def test_an_idle_worker_answers_heartbeats(broker):
    broker.run(inc, 1)
    broker.say(HEARTBEAT, 99, 0)
    assert broker.hear() == [HEARTBEAT, 99, 1]


def test_a_task_knows_what_it_is(broker):
    broker.lease(Task(who_am_i, slot=3), Task(who_am_i, slot=4, key="mine"))
    one, other = broker.entries(2)
    assert one.value == ("who_am_i-503", one.attempt, 0, False)
    assert other.value == ("mine", other.attempt, 0, False)


def test_a_thread_of_a_task_knows_the_task(broker):
    ((task, attempt),) = broker.lease(Task(ask_in_a_thread))
    assert broker.entries(1)[0].value == (f"ask_in_a_thread-{task + 500}", attempt, 0, False)


def test_functions_may_travel_by_value(broker):
    factor = 3
    assert broker.run(lambda number: number * factor, 14).value == 42


def test_no_task_runs_outside_a_task():
    from headrace.current import current

    with pytest.raises(headrace.UsageError, match="no task runs here"):
        current()


def test_tasks_find_an_empty_main_and_the_clients_path(broker):
    assert broker.run(main_names).value == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]
    assert broker.run(client_path).value == sys.path
    assert broker.run(arguments).value == ["-c"]


def test_what_tasks_print_leaves_line_by_line(broker):
    broker.run(print, "one")
    assert broker.process.stdout() == "one\n"


def test_each_piece_that_a_task_writes_names_its_attempt(broker):
    broker.lease(Task(print, ("two words",), slot=5), Task(inc, (1,), slot=6), Task(print, ("x" * 5_000,), slot=7))
    entries = {entry.task: entry.attempt for entry in broker.entries(3)}
    pieces = written(broker.process.stdout_fd)
    # A piece and its mark are what a pipe takes at once: 4,096 bytes.
    expected = [(5, "two words\n"), (7, "x" * 4_076), (7, "x" * 924 + "\n")]
    assert pieces == [Piece(task, entries[task], text) for task, text in expected]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("seven"), KeyboardInterrupt(), SystemExit(5), Unruly("x")], ids=repr)
def test_an_exception_of_any_kind_fails_its_task_alone(broker, error):
    broker.lease(Task(inc, (1,)), Task(raises, (error,)), Task(inc, (2,)))
    one, bad, two = broker.entries(3)
    assert (one.value, two.value) == (2, 3)
    assert error.__class__.__name__ in repr(failure(bad))
    assert f"raises-{bad.task + 500}" in repr(failure(bad))


def test_leases_whose_input_failed_here_are_returned(broker):
    broker.lease(
        Task(raises, (ValueError(),), slot=1, flags=HOLD_VALUE),
        Task(inc, (Dep(0),), deps=(1,), slot=2, flags=HOLD_VALUE),
        Task(inc, (Dep(0),), deps=(2,), slot=3),
        Task(inc, (1,), slot=4),
    )
    assert broker.reports(4).verdicts() == [(1, FAILED), (2, RETURNED), (3, RETURNED), (4, DONE)]


@pytest.mark.parametrize(
    ("function", "words"),
    [(generate, "is a generator"), (coroutine, "is a coroutine"), (async_generator, "is an async generator")],
)
def test_a_result_that_is_still_to_be_made_fails_its_task_alone(broker, function, words):
    broker.lease(Task(function), Task(inc, (1,)))
    bad, good = broker.entries(2)
    assert good.value == 2
    record = repr(failure(bad))
    assert "ResultNotPicklable" in record
    assert f"{function.__name__}-{bad.task + 500}" in record
    assert words in record
    assert broker.process.stderr() == ""


def test_an_unpicklable_result_names_the_path_to_what_is_wrong(broker):
    record = repr(failure(broker.run(Holder)))
    assert "ResultNotPicklable" in record
    assert ".inner['lock']" in record.replace("\\", "")


def test_a_result_above_the_limit_fails_its_task_alone(tmp_path):
    with Broker(tmp_path, result_bytes_max=10_000) as broker:
        broker.greet()
        broker.lease(Task(bytes, (20_000,)), Task(bytes, (1000,)))
        bad, good = broker.entries(2)
        record = repr(failure(bad))
        assert "ResultTooLarge" in record
        assert "10,000" in record
        assert len(good.value) == 1000


def test_an_exception_above_the_limit_is_told_by_its_name(broker):
    entry = broker.run(raises, ValueError("x" * 900), slot=1)
    assert "xxx" in repr(failure(entry))
    entry = broker.run(raise_long)
    assert "ValueError" in repr(failure(entry))
    assert len(entry.blob) < 1 << 20


def test_a_function_that_cannot_be_loaded_fails_each_of_its_tasks(broker):
    broker.lease(Task("no function"), Task("no function"), raw_function=b"cno_such_module\nf\n.")
    for entry in broker.entries(2):
        record = repr(failure(entry))
        assert "ModuleNotFoundError" in record
    assert broker.run(inc, 1).value == 2


def test_many_bytes_leave_before_the_end_of_the_frame(tmp_path):
    with Broker(tmp_path, result_bytes_max=16 << 20) as broker:
        broker.greet()
        broker.lease(*[Task(bytes, (60_000,))] * 160)
        reports = []
        while sum(reports) < 160:
            reports.append(len(broker.report().verdicts()))
        assert len(reports) > 1
