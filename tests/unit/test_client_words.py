"""The words of failures, and whole lines of output."""

import pytest

from headrace import errors, failures, output


def test_a_skipped_task_names_its_root():
    error = failures.skipped("report", "load-3", KeyError("id"))
    assert str(error) == "'report' did not run because 'load-3' failed: KeyError('id')"
    assert error.root_key == "load-3"
    assert isinstance(error.__cause__, KeyError)
    unknown = failures.skipped("report", None, None)
    assert str(unknown) == "'report' did not run because a task that it needs failed"


@pytest.mark.parametrize(
    ("reason", "word"),
    [(0, "user"), (1, "parent-cancelled"), (2, "client-closed"), (3, "broker-shutdown"), (77, "user")],
)
def test_a_cancelled_task_says_why(reason, word):
    error = failures.cancelled("fit-1", reason)
    assert isinstance(error, errors.CancelledError)
    assert (error.key, error.reason) == ("fit-1", word)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NoSuitableWorker: a task is pinned to worker 9, workers are 0 to 1", errors.NoSuitableWorker),
        ("the result of task 3 of run 1 was released", errors.ResultReleased),
        ("something else", errors.GraphError),
    ],
)
def test_a_refusal_has_the_class_of_its_cause(text, kind):
    error = failures.refused("fit-1", text)
    assert type(error) is kind
    assert "'fit-1'" in str(error)


@pytest.mark.parametrize(
    ("by_us", "reason", "kind"),
    [
        (True, 0, errors.CancelledError),
        (False, 1, errors.VersionMismatch),
        (False, 4, errors.InfraError),
        (False, 3, errors.BrokerLost),
        (False, None, errors.BrokerLost),
    ],
)
def test_a_result_that_never_comes_has_a_reason(by_us, reason, kind):
    assert type(failures.lost("fit-1", by_us, reason, "the words of the other side")) is kind


def test_lines_are_marked_and_bytes_are_not_lost():
    assert output.mark(3, b"one\ntwo \xff\n") == "[worker 3] one\n[worker 3] two \ufffd\n"
    assert output.mark(output.NO_WORKER, b"headrace: x\n") == "headrace: x\n"


def test_a_program_without_streams_is_left_alone(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    output.Stream("stdout").write("nobody hears\n")
