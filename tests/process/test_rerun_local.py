"""A task once more in this process: its inputs, its exception, the debugger."""

import os
import subprocess
import sys
import traceback

import pytest
from client_tasks import add, inc, total

import headrace as hr

TIMEOUT_S = 30


@pytest.fixture(scope="module", params=["processes", "threads", "sync"])
def client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


def divide(left, right=1):
    return left / right, os.getpid()


def halves(number):
    return number // 2, number - number // 2


def who():
    return hr.current().key


def grow(numbers):
    numbers.append(len(numbers))
    return numbers


def test_a_task_runs_here_with_the_inputs_that_it_had(client):
    graph = hr.Graph()
    left, right = graph.add(inc, 9), graph.add(inc, 1)
    last = graph.add(hr.task(divide, key="last"), left, right=right)
    run = client.submit(graph, keep=[left, right, last])
    assert run.result(last, timeout=TIMEOUT_S)[0] == 5
    assert run.rerun_local(last) == run.rerun_local("last") == (5, os.getpid())


def test_its_exception_comes_with_its_traceback(client):
    graph = hr.Graph()
    zero = graph.add(inc, -1)
    last = graph.add(divide, 1, zero)
    run = client.submit(graph, keep=[zero])
    assert run.wait(TIMEOUT_S)
    with pytest.raises(ZeroDivisionError) as raised:
        run.rerun_local(last)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert (frames[-1].name, frames[-1].line) == ("divide", "return left / right, os.getpid()")


def test_what_is_not_kept_is_named(client):
    graph = hr.Graph()
    nodes = graph.map(inc, range(8))
    last = graph.add(total, *nodes)
    run = client.submit(graph)
    assert run.wait(TIMEOUT_S)
    text = (
        r"'total-8' cannot run here without its inputs: the run does not keep 'inc-0', 'inc-1', 'inc-2', 'inc-3', "
        r"'inc-4' and 3 more; name them in submit\(graph, keep="
    )
    with pytest.raises(hr.NotKept, match=text):
        run.rerun_local(last)


def test_parts_of_tuples_and_constants_need_not_be_kept(client):
    graph = hr.Graph()
    pair = graph.add(hr.task(halves, nout=2), 11)
    low, high = pair
    sums = graph.map(add, [low, high], right=3)
    # A constant of more than 64 KiB travels once, as a task of its own.
    long = graph.map(who_is_long, [1, 2], text="x" * 100_000)
    run = client.submit(graph, keep=[pair])
    assert run.wait(TIMEOUT_S)
    assert [run.rerun_local(node) for node in sums] == [8, 9]
    assert run.rerun_local(long[1]) == (2, 100_000)


def who_is_long(number, text):
    return number, len(text)


def test_refs_and_futures_are_fetched(client):
    first = hr.Graph()
    node = first.add(inc, 1)
    ref = client.submit(first).ref(node)
    future = client.call(inc, 10)
    graph = hr.Graph()
    last = graph.add(total, ref, future, client.put(100))
    run = client.submit(graph)
    assert run.result(timeout=TIMEOUT_S) == run.rerun_local(last) == 113


def test_an_input_that_failed_is_the_cause(client):
    graph = hr.Graph()
    bad = graph.add(divide, 1, 0)
    last = graph.add(hr.task(inc, key="last"), bad)
    run = client.submit(graph, keep=[bad])
    assert run.wait(TIMEOUT_S)
    with pytest.raises(hr.UpstreamFailed, match=r"'last' did not run because 'divide-0' failed") as raised:
        run.rerun_local(last)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_it_knows_its_key_and_leaves_the_run_alone(client):
    graph = hr.Graph()
    node = graph.add(hr.task(who, key="it"))
    run = client.submit(graph)
    assert run.result(timeout=TIMEOUT_S) == run.rerun_local(node) == "it"
    assert run.progress().done == 1
    with pytest.raises(hr.GraphError, match="'nonsense'"):
        run.rerun_local("nonsense")


def test_a_writable_argument_is_its_own(client):
    graph = hr.Graph()
    numbers = graph.add(list, range(3))
    longer = graph.add(hr.task(grow, writable="numbers"), numbers)
    run = client.submit(graph, keep=[numbers, longer])
    assert run.wait(TIMEOUT_S)
    assert run.rerun_local(longer) == run.rerun_local(longer) == [0, 1, 2, 3]
    assert run.result(numbers) == [0, 1, 2]


def test_the_debugger_stops_before_the_first_line():
    text = """
import headrace as hr


def double(number):
    twice = number + number
    return twice


graph = hr.Graph()
node = graph.add(double, 21)
with hr.Client(workers=1, mode="sync") as client:
    run = client.submit(graph)
    print("value", run.rerun_local(node, pdb=True))
"""
    commands = "p number\nnext\nnext\np twice\ncontinue\n"
    program = [sys.executable, "-W", "error", "-c", text]
    told = subprocess.run(program, input=commands, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert told.returncode == 0, told.stderr
    words = told.stdout.replace("(Pdb)", "").split()
    assert "double()" in told.stdout
    assert words.index("21") < words.index("42")
    assert told.stdout.rstrip().endswith("value 42")
