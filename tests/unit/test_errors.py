"""Errors: each is also Python's own word for it, can travel, and says what to do."""

import concurrent.futures
import pickle
import subprocess
import sys

import pytest

import headrace
from headrace import errors

CLASSES = sorted(
    {name for name, thing in vars(errors).items() if isinstance(thing, type) and thing.__module__ == errors.__name__}
    | {"CancelledError"}
)

#: Python's own words.
WORDS = {
    "TaskTimeout": TimeoutError,
    "CancelledError": concurrent.futures.CancelledError,
    "WorkerOOM": MemoryError,
    "WorkerLost": ConnectionError,
    "BrokerLost": ConnectionError,
    "StoreFull": MemoryError,
    "GraphError": ValueError,
    "ArgumentNotPicklable": TypeError,
    "ResultNotPicklable": TypeError,
    "ResultTooLarge": ValueError,
    "NotKept": LookupError,
    "ResultReleased": LookupError,
    "ForkedClientError": RuntimeError,
    "VersionMismatch": RuntimeError,
    "AuthError": PermissionError,
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_can_be_caught_by_both_names(name):
    error_class = getattr(headrace, name)
    assert error_class is getattr(errors, name)
    assert issubclass(error_class, headrace.HeadraceError)
    assert issubclass(error_class, WORDS.get(name, Exception))
    assert str(error_class("what to do")) == "what to do"
    assert error_class.__doc__.split(".")[0]


def tblib(error):
    """The journey that Dask's distributed has exceptions make."""
    support = pytest.importorskip("tblib.pickling_support")
    make, arguments, *rest = support.pickle_exception(error)
    again = make(*arguments)
    vars(again).update(*rest)
    return again


@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), tblib], ids=["pickle", "tblib"])
@pytest.mark.parametrize("name", CLASSES)
def test_each_error_survives_a_journey(name, travel):
    error = getattr(errors, name)("what happened")
    facts = {fact: f"a {fact}" for fact in vars(error)}
    vars(error).update(facts)
    error.add_note("on the way")
    again = travel(error)
    assert type(again) is type(error)
    assert again.args == error.args
    assert vars(again) == facts | {"__notes__": ["on the way"]}


def test_facts_are_attributes():
    died = errors.WorkerDied("text", key="fit-17", pid=4711, signal=9, attempts=1, worker=2, stderr="last words")
    assert (died.key, died.pid, died.signal, died.exit_code, died.attempts) == ("fit-17", 4711, 9, None, 1)
    assert (died.worker, died.stderr) == (2, "last words")
    assert errors.UpstreamFailed("text", key="report", root_key="load-3").root_key == "load-3"
    assert errors.CancelledError("text", key="a", reason="client-closed").reason == "client-closed"
    assert isinstance(errors.PoisonTask("text"), errors.WorkerDied)


def test_the_groups():
    infra = {"WorkerDied", "WorkerLost", "BrokerLost", "ResultLost", "StoreFull", "Stalled", "NoSuitableWorker"}
    usage = {"GraphError", "ArgumentNotPicklable", "ResultTooLarge", "NotKept", "ResultReleased", "ForkedClientError"}
    assert all(issubclass(getattr(errors, name), errors.InfraError) for name in infra)
    assert all(
        issubclass(getattr(errors, name), errors.UsageError) for name in usage | {"VersionMismatch", "AuthError"}
    )


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'WorkerDead'"):
        errors.WorkerDead  # noqa: B018


def test_other_systems_are_refused_with_a_remedy():
    script = "import sys; sys.platform = 'darwin'; import headrace"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ImportError: headrace runs on Linux only, and this is darwin" in ran.stderr
    assert "Linux container" in ran.stderr
