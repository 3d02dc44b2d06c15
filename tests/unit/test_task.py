"""Task objects: the function as it was, and options for its tasks."""

import functools
import inspect
import pickle

import graph_tasks
import pytest
from graph_tasks import Model, decorated, evaluate, inc

import headrace
from headrace import Graph, Task, UsageError, task
from headrace.options import policy_of


def test_a_task_object_is_the_function_when_called():
    assert decorated(4) == 8
    assert decorated(4, y=3) == 12
    assert Model(2).marked(3) == -6
    assert Model.marked(Model(2), 3) == -6


def test_a_task_object_looks_like_the_function():
    assert decorated.__name__ == "decorated"
    assert decorated.__doc__ == "Doubled."
    assert decorated.__module__ == "graph_tasks"
    assert str(inspect.signature(decorated)) == "(x, y=2)"
    assert decorated.__wrapped__(1) == 2
    assert repr(decorated) == "<Task decorated(priority=3)>"
    assert repr(task(inc)) == "<Task inc>"


@pytest.mark.parametrize("make", [lambda fn: task(fn), lambda fn: task()(fn), lambda fn: task(fn, priority=1)])
def test_every_way_to_make_one(make):
    assert isinstance(make(inc), Task)
    assert make(inc)(1) == 2


def test_options_are_kept_on_top_of_each_other():
    first = task(inc, priority=1, key="a")
    second = first.options(priority=2)
    third = task(second, worker=0)
    assert repr(first) == "<Task inc(priority=1, key='a')>"
    assert repr(second) == "<Task inc(priority=2, key='a')>"
    assert repr(third) == "<Task inc(priority=2, key='a', worker=0)>"
    assert third.__wrapped__ is inc


@pytest.mark.parametrize("give", [lambda **options: task(inc, **options), task, task(inc).options])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retires": 3}, r"unknown option 'retires'; known options: key, priority, worker, nout, writable, retries"),
        ({"key": ""}, "option key must be a text that is not empty, not ''"),
        ({"key": 3}, "option key must be a text"),
        ({"priority": 1.5}, "option priority must be an int from -2,147,483,648 to 2,147,483,647, not 1.5"),
        ({"priority": 2**31}, "option priority"),
        ({"priority": True}, "option priority"),
        ({"worker": -1}, "option worker must be an int from 0"),
        ({"worker": "0"}, "option worker"),
        ({"nout": 0}, "option nout must be an int from 1"),
        ({"writable": 3}, "option writable must be the name of a parameter, or a tuple of names, not 3"),
        ({"writable": ("x", 3)}, "option writable must be the name of a parameter"),
        ({"retries": -1}, "option retries must be an int from 0 to 1,000,000, not -1"),
        ({"retries": 1, "retry_on": 3}, "option retry_on must be a class of exceptions"),
        ({"retries": 1, "retry_on": ()}, "option retry_on must be a class of exceptions"),
        ({"retries": 1, "retry_on": (OSError, 3)}, "option retry_on must be a class of exceptions"),
        ({"retries": 1, "retry_on": int}, "option retry_on must be a class of exceptions"),
        ({"retry_on": OSError}, "say how many by option retries"),
        ({"backoff": -1}, "option backoff must be seconds from 0 to"),
        ({"backoff": (1, 2, 3)}, "option backoff must be seconds, or a pair of the first and the longest pause"),
        ({"backoff": (3, 1)}, "the first pause is longer than the longest"),
        ({"timeout_s": 0}, r"option timeout_s must be seconds from 0\.001 to 4,294,967, not 0"),
        ({"timeout_s": float("nan")}, "option timeout_s must be seconds"),
        ({"timeout_s": True}, "option timeout_s must be seconds"),
        ({"queue_timeout_s": "1"}, "option queue_timeout_s must be seconds"),
        ({"speculative": 1}, "option speculative must be True or False, not 1"),
        ({"resources": "gpu"}, "option resources must map names to amounts"),
        ({"resources": {"gpu": 0.5}}, "option resources: 'gpu' must be a whole number of at least 0"),
        ({"resources": {"memory": "4 GoB"}}, "option resources: 'memory' must be a number or a size such as '4GiB'"),
        ({"resources": {"memory": "-1GiB"}}, "option resources: 'memory' must be a whole number of at least 0"),
        ({"resources": {"": 1}}, "a resource's name must be a text that is not empty"),
        ({"tags": 3}, "option tags must be a name, or a tuple of names"),
        ({"tags": ("db", "")}, "option tags must be a name, or a tuple of names"),
    ],
)
def test_options_are_checked_when_given(give, options, text):
    with pytest.raises(UsageError, match=text):
        give(**options)


@pytest.mark.parametrize("thing", [3, "inc", [inc]])
def test_only_what_can_be_called_becomes_a_task_object(thing):
    with pytest.raises(UsageError, match=f"takes a function, not {type(thing).__name__}"):
        task(thing)


def test_callables_without_a_name():
    partial = functools.partial(inc, 4)
    assert repr(task(partial)) == "<Task partial>"
    assert task(partial)() == 5
    graph = Graph()
    assert graph.add(partial).key == "inc-0"
    assert graph.add(task(partial)).key == "inc-1"
    assert graph.add(functools.partial(partial)).key == "inc-2"


def test_options_reach_the_graph():
    graph = Graph()
    model = Model(2)
    graph.add(decorated, 1)
    graph.add(task(inc, worker=1), 1)
    graph.add(model.marked, 3)
    assert evaluate(graph) == [2, 2, -6]


@pytest.mark.parametrize("thing", [decorated, decorated.options(priority=4), task(inc, key="k"), task(len)])
def test_a_task_object_can_be_an_argument_and_a_pickle(thing):
    again = pickle.loads(pickle.dumps(thing))
    assert repr(again) == repr(thing)
    assert again.__wrapped__ is thing.__wrapped__


def test_a_decorated_function_travels_by_name():
    from headrace.pickling import dump_function, load_function

    for thing in (decorated, decorated.__wrapped__, decorated.options(key="k")):
        blob = dump_function(thing)
        assert len(blob) < 60
        assert load_function(blob) is decorated.__wrapped__
    assert load_function(dump_function(task(inc))) is inc
    assert load_function(dump_function(graph_tasks.Model.marked)) is Model.marked.__wrapped__


def test_names_are_there():
    for name in headrace.__all__:
        assert getattr(headrace, name) is not None
    assert set(dir(headrace)) >= set(headrace.__all__)
    with pytest.raises(AttributeError, match="no attribute 'grpah'"):
        headrace.grpah  # noqa: B018


def test_options_come_to_what_travels():
    assert policy_of({"key": "a", "priority": 3, "worker": 1, "nout": 2, "writable": "x"}) is None
    assert policy_of({"retries": 2}) == (2, 0, 0, 60_000, 0, 0, [], [])
    assert policy_of({"retries": 2, "retry_on": OSError, "backoff": 0.0001}) == (2, 1, 1, 60_000, 0, 0, [], [])
    assert policy_of({"backoff": 90})[2:4] == (90_000, 90_000)
    assert policy_of({"backoff": (0.5, 4)})[2:4] == (500, 4_000)
    assert policy_of({"timeout_s": 1.5, "queue_timeout_s": 2})[4:6] == (1_500, 2_000)
    assert policy_of({"speculative": True})[1] == 2
    assert policy_of({"speculative": True, "retries": 1, "retry_on": OSError})[1] == 3
    assert policy_of({"tags": "db"})[7] == ["db"]
    assert policy_of({"tags": ("web", "db", "web")})[7] == ["db", "web"]
    sizes = {"memory": "4 GiB", "gpu": 1, "disk": "1.5kB", "tokens": "1_000"}
    assert policy_of({"resources": sizes})[6] == [("disk", 1_500), ("gpu", 1), ("memory", 4 << 30), ("tokens", 1_000)]
