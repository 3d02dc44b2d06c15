"""What a task raises in a worker process is raised by the client, and the worker lives on."""

import asyncio
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
from failing_tasks import (
    Needs,
    Several,
    Sour,
    Unruly,
    fail_by_a_local_class,
    fail_by_a_loop,
    fail_deep,
    fail_for_ever,
    fail_from_a_cause,
    fail_from_none,
    fail_in_a_group,
    fail_long,
    fail_needing,
    fail_noted,
    fail_while_handling,
    fail_while_it_is_recorded,
    fail_with_a_lambda,
    fail_with_a_lock,
    fail_without_words,
    inc,
    lock,
    process_id,
    raises,
)
from outside import wait_until

import headrace as hr
from headrace.records import RemoteTraceback

TIMEOUT_S = 30
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shared_client():
    with hr.Client(workers=1) as client:
        yield client


@pytest.fixture
def client(shared_client):
    """A client whose worker outlives the test."""
    pid = shared_client.call(process_id).result(TIMEOUT_S)
    yield shared_client
    assert shared_client.call(process_id).result(TIMEOUT_S) == pid


def failure(client, function, *args):
    """What the client raises for a task that fails."""
    future = client.call(function, *args)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        future.result(TIMEOUT_S)
    assert future.exception() is caught.value
    (note,) = [note for note in caught.value.__notes__ if "raised by task" in note]
    assert f"task {future.key!r} (attempt " in note
    assert note.endswith("worker 0)")
    return caught.value


# -- the exception itself ----------------------------------------------------------------------------------------------


def test_the_original_exception_with_the_traceback_in_the_worker(client):
    error = failure(client, fail_noted)
    assert type(error) is Sour
    assert (error.args, error.degree, error.where, error.__notes__[0]) == ((7,), 7, "there", "first")
    assert type(error.__cause__) is RemoteTraceback
    shown = "".join(traceback.format_exception(error))
    assert "failing_tasks.py" in shown
    assert "in fail_noted" in shown


def test_a_cause_of_the_same_module(client):
    error = failure(client, fail_from_a_cause)
    assert repr(error) == "KeyError('outer')"
    assert type(error.__cause__) is Sour
    assert error.__cause__.__notes__ == ["first"]
    assert error.__context__ is error.__cause__
    assert "in fail_from_a_cause" in error.__notes__[-1]


@pytest.mark.parametrize(("function", "suppressed"), [(fail_while_handling, False), (fail_from_none, True)])
def test_a_context(client, function, suppressed):
    error = failure(client, function)
    assert type(error) is KeyError
    assert type(error.__context__) is Sour
    assert error.__suppress_context__ is suppressed
    assert ("in fail_noted" in str(error.__cause__)) is not suppressed


def test_a_tree_of_groups(client):
    error = failure(client, fail_in_a_group)
    assert type(error) is ExceptionGroup
    inner, missing = error.exceptions
    assert (type(inner), inner.message, inner.__notes__) == (Several, "inner", ["inside"])
    assert (type(missing), missing.filename) == (FileNotFoundError, "path")
    outer, text = inner.exceptions
    assert (type(outer), type(outer.__cause__)) == (KeyError, Sour)
    assert type(text) is hr.TaskError
    assert error.subgroup(Sour) is None
    assert error.subgroup(OSError).exceptions == (missing,)


def test_a_loop_of_causes(client):
    error = failure(client, fail_by_a_loop)
    assert error.__cause__.__cause__ is error


def test_an_attribute_that_is_a_lambda(client):
    assert failure(client, fail_with_a_lambda).retry(1) == 2


def test_a_class_of_a_function(client):
    error = failure(client, fail_by_a_local_class)
    assert isinstance(error, Sour)
    assert (type(error).__name__, error.degree) == ("Local", 7)


def test_the_end_of_the_stack(client):
    assert type(failure(client, fail_deep)) is RecursionError


@pytest.mark.parametrize("error", [Unruly("x"), StopIteration(5), StopAsyncIteration(6)], ids=repr)
def test_an_exception_of_no_kind_that_is_expected(client, error):
    assert repr(failure(client, raises, error)) == repr(error)


# -- text in its place -------------------------------------------------------------------------------------------------


def test_an_exception_that_cannot_be_made_again(client):
    error = failure(client, fail_needing)
    assert type(error) is hr.TaskError
    assert str(error) == "failing_tasks.Needs: 1 and 2"
    assert error.type_name == f"{Needs.__module__}.Needs"
    assert error.key.startswith("fail_needing-")
    assert error.worker == 0
    assert "in fail_needing" in error.traceback
    assert "missing 1 required positional argument" in error.__notes__[0]


def test_an_exception_that_holds_a_lock(client):
    error = failure(client, fail_with_a_lock)
    assert type(error) is hr.TaskError
    assert ".lock: cannot pickle '_thread.lock' object" in error.__notes__[0]
    assert repr(error.__cause__) == "ValueError('the rest')"


@pytest.mark.parametrize("order", [KeyboardInterrupt("c"), SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_orders_to_end_fail_their_task_alone(client, order):
    error = failure(client, raises, order)
    assert type(error) is hr.TaskError
    assert error.type_name.endswith(type(order).__name__)


@pytest.mark.parametrize("function", [fail_without_words, fail_while_it_is_recorded])
def test_methods_that_want_to_end_the_worker(client, function):
    assert isinstance(failure(client, function), Exception)


def test_a_message_of_10_mb(client):
    error = failure(client, fail_long, 10 << 20)
    assert type(error) is hr.TaskError
    assert error.type_name == "ValueError"
    assert len(str(error)) < 70_000


def test_a_cancel_reaches_an_exception_that_is_being_recorded(client, tmp_path):
    entered = tmp_path / "entered"
    future = client.call(fail_for_ever, str(entered))
    wait_until(entered.exists)
    assert future.cancel()
    assert client.call(inc, 1).result(TIMEOUT_S) == 2


# -- errors of headrace's own ------------------------------------------------------------------------------------------


def test_a_result_that_cannot_leave_its_worker(client):
    error = failure(client, lock)
    assert type(error) is hr.ResultNotPicklable
    assert error.key.startswith("lock")
    assert isinstance(error.__cause__, TypeError)


def test_many_failures_at_once(client):
    graph = hr.Graph()
    nodes = [graph.add(raises, Sour(number)) for number in range(500)]
    run = client.submit(graph, keep=nodes)
    failed = {node.key: error for node, error in run.as_completed(errors="return")}
    assert [failed[node.key].degree for node in nodes] == list(range(500))


# -- classes of a script -----------------------------------------------------------------------------------------------


def run_script(text):
    """Run a program of its own and give what it prints."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(text)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_classes_of_main_come_back_as_the_client_s_own():
    out = run_script(
        """
        import headrace as hr

        unit = "degrees"

        class Sour(Exception):
            raised = 0
            def __init__(self, degree):
                super().__init__(degree)
                self.degree = degree
            def __str__(self):
                return f"{self.degree} {unit}"

        class Several(ExceptionGroup):
            pass

        class Needs(Exception):
            def __init__(self, left, right):
                super().__init__(left)

        def fail(degree):
            Sour.raised += 1
            try:
                raise Sour(degree)
            except Sour as error:
                raise Several("several", [error, Sour(8), Needs(1, 2)]) from Sour(9)

        with hr.Client(workers=1) as client:
            method = Sour.__str__
            for _ in range(2):
                try:
                    client.call(fail, 7).result(30)
                except Several as error:
                    print(type(error) is Several, [type(e).__name__ for e in error.exceptions], error.__cause__.degree)
                    assert all(type(e) is Sour for e in [*error.exceptions[:2], error.__cause__, error.__context__])
                    assert error.exceptions[0] is error.__context__
            unit = "points"
            print(Sour.__str__ is method, Sour.raised, Sour(1))
        """
    )
    line = "True ['Sour', 'Sour', 'TaskError'] 9\n"
    assert out == line * 2 + "True 0 1 points\n"


def test_orders_to_end_do_not_end_the_client():
    out = run_script(
        """
        import sys
        import headrace as hr

        with hr.Client(workers=1) as client:
            try:
                client.call(sys.exit, 3).result(30)
            except Exception as error:
                print(type(error).__name__, error)
        print("on")
        """
    )
    assert out == "TaskError SystemExit: 3\non\n"


def test_what_nobody_catches_is_shown_with_the_traceback_in_the_worker():
    command = """
        import sys
        sys.path.insert(0, ".")
        import headrace as hr
        from failing_tasks import fail_from_a_cause

        with hr.Client(workers=1) as client:
            client.call(fail_from_a_cause).result(30)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(command)], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=HERE
    )
    assert done.returncode == 1
    assert "in fail_noted" in done.stderr
    assert "KeyError: 'outer'\nheadrace: raised by task 'fail_from_a_cause" in done.stderr


SCRIPT_THAT_FAILS = """
import traceback

import headrace as hr

def fails(number):
    return 1 / number  # the line to blame

class Late:
    def __init__(self, at):
        self.at = at

    def method(self):
        raise KeyError(self.at)  # the method's line

def calls(late):
    late.method()

with hr.Client(workers=1) as client:
    for future in (client.call(fails, 0), client.call(calls, Late(1)), client.call(lambda: len(1))):
        traceback.print_exception(future.exception())
"""


def test_a_traceback_of_a_function_that_travelled_by_value_shows_its_lines(tmp_path):
    script = tmp_path / "script_that_fails.py"
    script.write_text(SCRIPT_THAT_FAILS)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.count(f'File "{script}"') >= 3, ended.stderr
    for line in ("return 1 / number  # the line to blame", "raise KeyError(self.at)  # the method's line", "len(1)"):
        assert line in ended.stderr
    assert "<dynamic-code>" not in ended.stderr
