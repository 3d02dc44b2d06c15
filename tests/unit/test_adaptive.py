"""The rule that asks for workers, and how patient it is."""

import threading

from headrace.adaptive import PATIENCE, Follower, Load, by_backlog, load_of
from headrace.statistics import RunStatistics, WorkerStatistics


def load(ready=0, leased=0, task_s=1.0):
    return Load(0, ready, leased, 1, task_s)


def test_the_rule_follows_the_backlog():
    decide = by_backlog(1, 10, target_s=5)
    assert decide(load()) == 1
    assert decide(load(ready=20, leased=5)) == 5
    assert decide(load(ready=1_000)) == 10
    assert decide(load(ready=3, task_s=100.0)) == 3, "no more than tasks"
    assert decide(load(ready=7, task_s=0.0)) == 7, "nothing is known yet"
    assert by_backlog(0, 10)(load()) == 0


def test_the_load_is_read_from_the_state():
    workers = (WorkerStatistics(0, 7, 30, 6.0), WorkerStatistics(1, 0, 10, 2.0))
    assert load_of(RunStatistics(1, 2, 3, 4, 0, 0, 0, 0.0, 0.0, workers)) == Load(1, 2, 3, 1, 0.2)
    assert load_of(RunStatistics(1, 2, 3, 4, 0, 0, 0, 0.0, 0.0)).task_s == 0
    assert load(ready=3, leased=1, task_s=0.5).backlog_s == 2


def followed(wants):
    """What is asked for where the load asks for these."""
    asked, over, wants = [], threading.Event(), iter(wants)

    def look():
        wanted = next(wants, None)
        if wanted is None:
            over.set()
        return None if wanted is None else load(ready=wanted)

    def ask(count):
        asked.append(count)
        if count == 13:
            raise OSError("the engine is away")

    complaints = []
    follower = Follower(look, lambda load: load.ready, ask, 0.0, complaints.append)
    assert over.wait(10)
    follower.stop()
    return asked, complaints


def test_more_is_asked_for_at_once_and_fewer_after_a_while():
    assert followed([2, 5, 5, 3, 4, 5, 6]) == ([2, 5, 6], [])
    fewer = [3, 1, 2] + [1] * (PATIENCE - 3)
    assert followed([5, *fewer, 1]) == ([5, 3], [])
    assert followed([5, *fewer, *[1] * PATIENCE]) == ([5, 3, 1], [])


def test_an_engine_that_fails_is_asked_again():
    assert followed([13, 13, 2]) == ([13, 13, 2], ["OSError: the engine is away"] * 2)
