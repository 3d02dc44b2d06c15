"""Nodes of Dask as rows of steps: the same values as Dask's own way to run them, and nothing is kept for longer."""

import gc
import pickle
import weakref

import pytest

pytest.importorskip("dask")

from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple
from dask.utils_test import add, inc

from headrace.integrations._dask_steps import steps_of, take


def collect(*args, **kwargs):
    return args, kwargs


A, B = TaskRef("a"), TaskRef("b")
FUSED = Task.fuse(
    Task("x", inc, A), Task("y", add, TaskRef("x"), B), Task("z", add, TaskRef("y"), TaskRef("x")), key="f"
)
NODES = {
    "a call among the arguments": Task("t", add, Task(None, inc, A), B),
    "calls in calls": Task("t", add, Task(None, add, Task(None, inc, A), Task(None, inc, B)), 1),
    "containers": Task("t", collect, List(A, Tuple(B, 1), "text"), Dict({"k": Task(None, inc, A)}), Set(A, B)),
    "keyword arguments": Task("t", collect, 1, two=Task(None, inc, A), three=DataNode(None, 3), four=List(B)),
    "one input twice": Task("t", add, Task(None, add, A, A), A),
    "a fused row": FUSED,
    "a fused row in a fused row": Task.fuse(
        Task("before", inc, B), Task("f", FUSED.func, *FUSED.args), Task("after", add, TaskRef("f"), TaskRef("before"))
    ),
    "an alias in a fused row": Task.fuse(Task("x", inc, A), Alias("x2", "x"), Task("y", add, TaskRef("x2"), B)),
    "a value in a fused row": Task.fuse(DataNode("d", 5), Task("y", add, TaskRef("d"), A)),
    "a fused row that ends with an alias": Task.fuse(Task("x", inc, A), Alias("y", "x")),
}


@pytest.mark.parametrize("name", NODES)
def test_steps_give_what_the_node_gives(name):
    node, values = NODES[name], {"a": 1, "b": 10}
    needed = {key: values[key] for key in node.dependencies}
    steps = pickle.loads(pickle.dumps(steps_of(node, list(needed))))
    assert take(steps, *needed.values()) == node(needed)


class Thing:
    """Something that can be seen to be gone."""


alive = []


def make():
    thing = Thing()
    alive.append(weakref.ref(thing))
    return thing


def count(_thing):
    return sum(ref() is not None for ref in alive)


def count_again(_number):
    gc.collect()
    return sum(ref() is not None for ref in alive)


def test_what_no_later_step_needs_is_let_go_of():
    alive.clear()
    node = Task.fuse(Task("x", make), Task("y", count, TaskRef("x")), Task("z", count_again, TaskRef("y")), key="z")
    assert take(steps_of(node, [])) == 0


def test_long_rows_are_no_recursion():
    tasks = [Task(0, inc, A), *(Task(number, inc, TaskRef(number - 1)) for number in range(1, 3_000))]
    assert take(steps_of(Task.fuse(*tasks), ["a"]), 1) == 3_001
