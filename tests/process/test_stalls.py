"""Tasks that wait for each other: where nothing can go on, one of them is told."""

import re
import threading

import pytest
from limit_tasks import hold, nothing, opened, running, until

import headrace as hr

TIMEOUT_S = 30


@pytest.fixture(params=["threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param, limits={"db": 1}) as client:
        yield client


def test_a_task_that_waits_for_the_tag_that_it_holds_is_told(client):
    inner = hr.task(nothing, tags="db", key="inner")
    futures = []

    def outer():
        futures.append(client.call(inner))
        return futures[0].result()

    future = client.call(hr.task(outer, tags="db", key="outer"))
    text = (
        r"nothing can go on: task 'outer' waits, as does every task that runs, and 'inner' is ready and waits for tag "
        r"'db' \(limit 1\), held by 'outer' in (worker \d|a calling thread)\. Do not wait"
    )
    with pytest.raises(hr.Stalled, match=text):
        future.result(TIMEOUT_S)
    # That freed the tag, so the other one could run.
    assert futures[0].result(TIMEOUT_S) is None
    assert client.call(inner.options(key="again")).result(TIMEOUT_S) is None


def test_a_task_may_take_a_standstill_as_an_answer(client):
    inner = hr.task(nothing, tags="db")

    def outer():
        try:
            return client.call(inner).result()
        except hr.Stalled:
            return "given up"

    assert client.call(hr.task(outer, tags="db")).result(TIMEOUT_S) == "given up"


def test_a_task_that_waits_for_itself_is_told():
    with hr.Client(workers=2, mode="threads") as client:
        box, is_there = [], threading.Event()

        def outer():
            is_there.wait(TIMEOUT_S)
            return box[0].result()

        box.append(client.call(hr.task(outer, key="outer")))
        is_there.set()
        with pytest.raises(hr.Stalled, match=r"task 'outer' waits, .* and 'outer' runs in worker"):
            box[0].result(TIMEOUT_S)


def test_of_two_that_wait_for_each_other_one_is_told():
    with hr.Client(workers=2, mode="threads") as client:
        boxes, are_there = {}, threading.Event()

        def wait_for(other):
            are_there.wait(TIMEOUT_S)
            try:
                return boxes[other].result()
            except hr.Stalled:
                return "told"

        boxes.update({name: client.call(wait_for, "ba"["ab".index(name)]) for name in "ab"})
        are_there.set()
        assert [boxes[name].result(TIMEOUT_S) for name in "ab"] == ["told", "told"]


def test_who_waits_for_somebody_at_work_is_left_alone(tmp_path):
    with hr.Client(workers=2, mode="threads", limits={"db": 1}) as client, opened(tmp_path):
        client.call(hr.task(hold, tags="db"), str(tmp_path), "holder")
        until(lambda: running(tmp_path) == {"holder"})

        def outer():
            return client.call(hr.task(nothing, tags="db")).result()

        future = client.call(outer)
        with pytest.raises(TimeoutError):
            future.result(2)  # far longer than it takes to tell
        (tmp_path / "gate").touch()
        assert future.result(TIMEOUT_S) is None


def test_a_wait_with_an_end_ends_by_itself(client):
    def outer():
        return client.call(hr.task(nothing, tags="db")).result(1.5)

    with pytest.raises(TimeoutError, match=re.escape("has not ended within 1.5 s")):
        client.call(hr.task(outer, tags="db")).result(TIMEOUT_S)
