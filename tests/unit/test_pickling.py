"""What cannot travel is named: function, argument, and the path to the attribute."""

import collections
import dataclasses
import functools
import io
import threading
import traceback

import pytest
from graph_tasks import Model, inc

from headrace import ArgumentNotPicklable, Graph, task
from headrace.pickling import dump_function, explain, load_function

LOCK_TEXT = "cannot pickle '_thread.lock' object"


class Holder:
    def __init__(self, **parts):
        self.__dict__.update(parts)


class Slotted:
    __slots__ = ("part",)

    def __init__(self, part):
        self.part = part


@dataclasses.dataclass
class Config:
    name: str
    lock: object


def train(data, cfg, *rest, **more):
    return data


def lock():
    return threading.Lock()


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1, Config("a", lock())), {}, "argument 'cfg' -> .lock"),
        ((1,), {"cfg": Holder(deep=Holder(lock=lock()))}, "argument 'cfg' -> .deep.lock"),
        ((lock(), 2), {}, "argument 'data'"),
        ((1, 2, 3, [0, {"a": (lock(),)}]), {}, r"argument 'rest[1]' -> [1]['a'][0]"),
        ((1, 2), {"extra": Slotted(lock())}, "argument 'extra' -> .part"),
        ((1, functools.partial(inc, lock())), {}, "argument 'cfg' -> .args[0]"),
        ((1, collections.OrderedDict(x=lock())), {}, "argument 'cfg' -> ['x']"),
        ((1, Model(lock()).predict), {}, "argument 'cfg' -> .__self__.factor"),
        ((1, {lock()}), {}, "argument 'cfg' -> {…}"),
    ],
)
@pytest.mark.parametrize("verb", ["add", "map"])
def test_the_argument_and_the_path_are_named(verb, args, kwargs, text):
    graph = Graph()
    if verb == "map":
        args = [[arg] for arg in args]
    with pytest.raises(ArgumentNotPicklable) as caught:
        getattr(graph, verb)(train, *args, **kwargs)
    assert str(caught.value) == f"{verb}(train): {text}: {LOCK_TEXT}"
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value.__cause__, TypeError)


def test_the_error_is_raised_at_the_users_line():
    graph = Graph()
    with pytest.raises(ArgumentNotPicklable) as caught:
        graph.add(train, 1, lock())  # this line
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line.endswith("# this line")


def test_an_argument_of_a_builtin_goes_by_its_number():
    with pytest.raises(ArgumentNotPicklable, match=r"add\(max\): argument 'number 2': cannot pickle"):
        Graph().add(max, 1, lock())


def test_nodes_are_not_the_problem():
    graph = Graph()
    node = graph.add(inc, 1)
    with pytest.raises(ArgumentNotPicklable, match=r"argument 'cfg' -> \[2\]: cannot pickle"):
        graph.add(train, node, [node, {node}, lock()])


def test_a_circle_is_walked_once():
    loop = Holder(lock=lock())
    loop.me = loop
    assert explain(loop) == (".lock", LOCK_TEXT)


def test_an_object_that_hides_its_parts_is_named_as_a_whole():
    class Hidden:
        def __reduce__(self):
            raise ValueError("not today")

    assert explain([Hidden()]) == ("[0]", "not today")
    assert explain({"file": io.BytesIO()}) is None
    assert explain([1, (number for number in "a")]) == ("[1]", "cannot pickle 'generator' object")


def test_nothing_to_explain():
    assert explain([1, "a", Holder(x=1), inc]) is None


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_that_holds_a_lock():
    mine = lock()

    def holding():
        return mine

    for fn in (holding, task(holding, priority=1)):
        with pytest.raises(ArgumentNotPicklable) as caught:
            Graph().add(fn)
        assert str(caught.value) == f"add(holding): the function itself -> (closes over 'mine'): {LOCK_TEXT}"
    with pytest.raises(ArgumentNotPicklable, match=r"add\(inc\): the function itself -> \.args\[0\]: cannot pickle"):
        Graph().add(functools.partial(inc, mine))
    with pytest.raises(ArgumentNotPicklable, match=r"the function itself -> \.__self__\.factor: cannot pickle"):
        Graph().add(Model(mine).predict, 1)


def test_a_function_that_holds_a_node():
    graph = Graph()
    node = graph.add(inc, 1)
    with pytest.raises(
        ArgumentNotPicklable, match=r"the function itself holds what stands for a result; make that an arg"
    ):
        graph.add(lambda: node)


def test_functions_travel_by_name_or_by_value():
    offset = 3
    assert load_function(dump_function(inc)) is inc
    assert load_function(dump_function(len)) is len
    assert load_function(dump_function(dict)) is dict
    assert load_function(dump_function(lambda x: x + offset))(1) == 4
    assert load_function(dump_function(functools.partial(inc, 1)))() == 2
    assert load_function(dump_function(Model(3).predict))(2) == 6


def test_a_function_is_pickled_when_the_graph_first_sees_it():
    pickled = []

    class Counting:
        def __call__(self, x):
            return x

        def __reduce__(self):
            pickled.append(1)
            return Counting, ()

    graph, counting = Graph(), Counting()
    for number in range(5):
        graph.add(counting, number)
    graph.map(counting, range(5))
    before = len(pickled)
    Graph().add(counting, 1)
    assert len(pickled) == 2 * before
