"""Task objects: the function as it was, and options for its tasks."""

import functools
import inspect
import pickle

import graph_tasks
import pytest
from graph_tasks import Model, decorated, evaluate, inc

import headrace
from headrace import Graph, Task, UsageError, task


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
        ({"retires": 3}, r"unknown option 'retires'; known options: key, priority, worker, nout, writable"),
        *[
            ({name: 1}, f"option {name} comes with a later version; known options: key")
            for name in (
                "retries",
                "retry_on",
                "backoff",
                "timeout_s",
                "queue_timeout_s",
                "resources",
                "tags",
            )
        ],
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
