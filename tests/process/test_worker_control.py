"""A worker answers its broker while user code runs, and ends when it should."""

import os
import signal
import sys
import time

import pytest
from broker_double import (
    CANCELLED,
    DONE,
    GOODBYE,
    HEARTBEAT,
    HELLO,
    HOLD_VALUE,
    RETURNED,
    VALUE,
    VERSION_MISMATCH,
    WORKERS_FAILED,
    Broker,
    Dep,
    Task,
)
from sample_tasks import (
    finish_in_spite_of,
    fork_and_return,
    hold_interpreter,
    inc,
    leave_at_exit,
    spin_until_interrupted,
)

from headrace import launch

#: What an answer may take while user code runs, on a machine with nothing else to do; CI's gets more.
ANSWER_S = 0.005 if "HEADRACE_STRICT_TIMING" in os.environ else 5.0


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as broker:
        broker.greet()
        assert broker.run(inc, 1).value == 2
        yield broker
        assert broker.hears_nothing()


@pytest.fixture
def pipes(tmp_path):
    """Two named pipes: the task opens the first when it is under way, the test writes to the second to let it go on."""
    entered, release = str(tmp_path / "entered"), str(tmp_path / "release")
    os.mkfifo(entered)
    os.mkfifo(release)
    return entered, release


def wait_until_under_way(entered):
    with open(entered) as pipe:
        assert pipe.read() == ""


def let_go_on(release):
    with open(release, "w") as pipe:
        pipe.write(".")


def test_the_broker_is_answered_while_a_task_holds_the_interpreter_lock(broker, pipes):
    entered, release = pipes
    leases = broker.lease(
        Task(inc, (1,), slot=1, flags=HOLD_VALUE),
        Task(hold_interpreter, pipes, slot=2),
        Task(inc, (Dep(0),), deps=(1,), slot=3),
        Task(inc, (5,), slot=4, flags=HOLD_VALUE),
        Task(inc, (Dep(0),), deps=(4,), slot=5),
    )
    wait_until_under_way(entered)
    finished = time.monotonic()
    assert broker.report().verdicts() == [(1, 1)], "what is finished leaves at once"
    assert time.monotonic() - finished < ANSWER_S
    assert broker.process.executing() == leases[1]
    for number in range(20):
        asked = time.monotonic()
        broker.say(HEARTBEAT, number, 0)
        assert broker.hear() == [HEARTBEAT, number, 2]
        assert time.monotonic() - asked < ANSWER_S
    asked = time.monotonic()
    broker.recall([leases[1], leases[3]], fetch=[1])
    answer = broker.report()
    assert time.monotonic() - asked < ANSWER_S
    assert answer.verdicts() == [(1, VALUE), (4, RETURNED), (5, RETURNED)]
    broker.revoke([leases[2]])
    assert broker.report().verdicts() == [(3, CANCELLED)]
    broker.lease(Task(inc, (7,), slot=6))
    let_go_on(release)
    assert broker.reports(2).values() == ["released", 8]


def test_a_cancelled_attempt_is_interrupted_and_the_next_task_runs(broker, pipes):
    entered, _ = pipes
    leases = broker.lease(Task(spin_until_interrupted, (entered,)), Task(inc, (1,)))
    wait_until_under_way(entered)
    broker.process.set_cancel(*leases[0])
    broker.process.interrupt()
    assert [entry.verdict for entry in broker.entries(2)] == [CANCELLED, DONE]


def test_an_interrupt_for_another_attempt_changes_nothing(broker, pipes):
    entered, release = pipes
    leases = broker.lease(Task(hold_interpreter, pipes), Task(inc, (1,)))
    wait_until_under_way(entered)
    broker.process.set_cancel(leases[0][0], leases[0][1] + 1)
    broker.process.interrupt()
    let_go_on(release)
    assert broker.reports(2).values() == ["released", 2]


def test_an_interrupt_that_comes_too_late_hits_nobody(broker):
    for _ in range(50):
        leases = broker.lease(*(Task(inc, (number,)) for number in range(30)))
        broker.process.set_cancel(*leases[0])
        broker.process.interrupt()
        entries = broker.entries(30)
        # The signal may have come in time for the first task, and for no other.
        assert {entry.verdict for entry in entries[1:]} == {DONE}
        assert entries[0].verdict in (DONE, CANCELLED)
    broker.process.interrupt()
    assert broker.run(inc, 1).value == 2


def test_a_task_may_finish_in_spite_of_its_interrupt(broker, pipes):
    entered, _ = pipes
    leases = broker.lease(Task(finish_in_spite_of, (entered,)))
    wait_until_under_way(entered)
    broker.process.set_cancel(*leases[0])
    broker.process.interrupt()
    assert broker.reports(1).values() == ["finished"]


def test_the_status_page_names_the_attempt_while_it_runs_and_only_then(broker, pipes):
    entered, release = pipes
    leases = broker.lease(Task(hold_interpreter, pipes))
    wait_until_under_way(entered)
    assert broker.process.executing() == leases[0]
    let_go_on(release)
    assert broker.reports(1).values() == ["released"]
    broker.say(HEARTBEAT, 1, 0)  # answered by the idle main thread, or by a warden that saw it busy
    broker.hear()
    assert broker.run(inc, 1).value == 2


def test_goodbye_ends_the_process_in_an_orderly_way(broker, tmp_path):
    broker.run(leave_at_exit, str(tmp_path / "left"))
    assert broker.shut_down() == 0
    assert (tmp_path / "left").exists()
    assert broker.process.stderr() == ""


def test_a_refusal_is_told(tmp_path):
    with Broker(tmp_path) as broker:
        assert broker.hear()[0] == HELLO
        broker.say(GOODBYE, VERSION_MISMATCH, "the broker is headrace 9, the peer is headrace 0")
        assert broker.process.wait() == 1
        assert "the broker is headrace 9" in broker.process.stderr()


def test_a_broken_frame_ends_the_session(tmp_path):
    with Broker(tmp_path) as broker:
        broker.greet()
        broker.router.send_multipart([broker.peer, b"\xc1"])
        goodbye = broker.hear()
        assert goodbye[0] == GOODBYE
        assert broker.process.wait() == 1
        assert "a frame of the broker is broken" in goodbye[2]
        assert goodbye[2] in broker.process.stderr()


def test_an_idle_worker_ends_with_its_broker(broker):
    broker.process.control.close()
    assert broker.process.wait() == 4


def test_a_worker_ends_with_its_broker_while_a_task_holds_the_interpreter_lock(broker, pipes):
    entered, _ = pipes
    broker.lease(Task(hold_interpreter, pipes))
    wait_until_under_way(entered)
    gone = time.monotonic()
    broker.process.control.close()
    assert broker.process.wait() == 4
    assert time.monotonic() - gone < ANSWER_S


def test_a_forked_child_that_returns_from_its_task_runs_nothing_else(broker):
    assert broker.run(fork_and_return).value == 1
    assert "forked" in broker.process.stderr()
    assert broker.run(inc, 1).value == 2


def test_a_crash_leaves_a_traceback(broker):
    (lease,) = broker.lease(Task(signal.raise_signal, (signal.SIGSEGV,)))
    assert broker.process.wait() == -signal.SIGSEGV
    assert "Segmentation fault" in broker.process.stderr()
    assert broker.process.executing() == lease


# -- boot --------------------------------------------------------------------------------------------------------------


def test_preloaded_modules_and_setup_come_before_the_first_task(tmp_path):
    boot = launch.boot_record(["colorsys"], remember)
    with Broker(tmp_path, boot=boot) as broker:
        broker.greet()
        assert broker.run(loaded_before).value == (True, "set up")


def remember():
    sys.headrace_test = "set up"


def loaded_before():
    return "colorsys" in sys.modules, sys.headrace_test


@pytest.mark.parametrize(
    ("preload", "setup", "words"),
    [
        (["no_such_module"], None, "No module named 'no_such_module'"),
        ([], sys.exit, "SystemExit"),
        ([], leave_at_exit, "missing 1 required positional argument"),
    ],
)
def test_a_boot_that_fails_says_so_on_both_channels(tmp_path, preload, setup, words):
    with Broker(tmp_path, boot=launch.boot_record(preload, setup)) as broker:
        assert broker.hear()[0] == HELLO
        goodbye = broker.hear()
        assert goodbye[:2] == [GOODBYE, WORKERS_FAILED]
        assert words in goodbye[2]
        assert broker.process.wait() == 3
        assert words in broker.process.stderr()
