"""`Graph.from_dict`: graphs of mappings by Dask's convention."""

import collections
import gc
import itertools
import threading
import time

import pytest
from graph_tasks import add, concat, evaluate, give, inc

import headrace
from headrace import Graph, GraphError, task


def results(mapping):
    graph = Graph.from_dict(mapping)
    return {key: evaluate(graph, graph[key]) for key in mapping}


def test_arguments_that_equal_a_key_are_dependencies():
    found = results({"x": 1, "y": (inc, "x"), "z": (add, "x", "y", 10), "text": (concat, "a", "b")})
    assert found == {"x": 1, "y": 2, "z": 13, "text": "ab"}


def test_the_order_of_the_mapping_is_the_order_of_the_tasks():
    graph = Graph.from_dict({"c": (add, "b", "a"), "b": (inc, "a"), "a": 1})
    assert [node.key for node in graph] == ["c", "b", "a"]
    assert [node.key for node in graph["c"].predecessors] == ["b", "a"]
    assert evaluate(graph, graph["c"]) == 3


def test_nested_lists_are_walked_and_nothing_else():
    found = results({"a": 1, "lists": (give, ["a", ["a", "b"]], ("a", "b"), {"a": "a"})})
    assert found["lists"] == (([1, [1, "b"]], ("a", "b"), {"a": "a"}), {})


def test_nested_tuples_are_tasks():
    graph = Graph.from_dict({"a": 1, "sum": (add, (inc, (inc, "a")), [(inc, 5)][0], 1)})
    assert evaluate(graph, graph["sum"]) == 3 + 6 + 1
    assert [node.key for node in graph] == ["a", "sum", "inc-2", "inc-3", "inc-4"]


def test_values_that_are_no_tasks():
    found = results({"a": 1, "alias": "a", "list": ["a", (inc, "a")], "none": None, "empty": (), "pair": (1, "a")})
    assert found == {"a": 1, "alias": 1, "list": [1, 2], "none": None, "empty": (), "pair": (1, "a")}


def test_keys_of_every_kind():
    found = results({("x", 0): 1, ("x", 1): (inc, ("x", 0)), 7: (inc, ("x", 1)), b"b": (inc, 7), None: (add, 7, b"b")})
    assert list(found.values()) == [1, 2, 3, 4, 7]
    graph = Graph.from_dict({("x", 0): 1})
    assert graph.nodes.keys == ["('x', 0)"]
    assert graph["('x', 0)"] == graph[("x", 0)]


def test_what_cannot_be_hashed_is_no_key():
    value = collections.UserDict(a="a")
    value.__hash__ = None
    assert results({"a": 1, "b": (give, [value], {"x"}, {"a": [1]})})["b"] == (([value], {"x"}, {"a": [1]}), {})


def test_options_hold_and_the_mapping_gives_the_key():
    graph = Graph.from_dict({"mine": (task(inc, key="other", priority=3), 1)})
    assert graph.nodes.keys == ["mine"]


def test_any_mapping_will_do():
    tasks = collections.UserDict(a=1, b=(inc, "a"))
    graph = Graph.from_dict(tasks)
    assert evaluate(graph, graph["b"]) == 2


def test_the_graph_can_grow():
    graph = Graph.from_dict({"a": 1, "inc-2": (inc, "a")})
    with pytest.raises(GraphError, match="duplicate key 'inc-2'"):
        graph.add(inc, graph["a"])
    assert graph.add(add, graph["a"], graph["inc-2"]).key == "add-2"
    assert len(graph.subgraph("inc-2")) == 2


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"a": (inc, "a")}, "cycle of 1 task that wait for each other: a -> a"),
        ({"a": "a"}, "cycle of 1 task"),
        ({"a": (inc, "b"), "b": (inc, "a")}, "cycle of 2 tasks that wait for each other: b -> a -> b"),
        ({"x": 1, "a": (add, "x", ["c"]), "b": (inc, "a"), "c": [["b"]]}, "cycle of 3 tasks.*c -> b -> a -> c"),
        ({1: 2, "1": 3}, "duplicate key '1': keys are texts, and two keys have this one"),
    ],
)
def test_what_no_order_satisfies_is_refused(mapping, text):
    with pytest.raises(GraphError, match=text):
        Graph.from_dict(mapping)


@pytest.mark.parametrize("length", [10, 11, 1_000_000])
def test_a_cycle_is_shown_with_its_length_and_ten_keys_at_most(length):
    ring = {number: (inc, (number + 1) % length) for number in range(length)}
    begin = time.perf_counter()
    with pytest.raises(GraphError, match=f"cycle of {length} tasks") as caught:
        Graph.from_dict(ring)
    # Building, and the search for the cycle; a hundred times what it takes would still tell of a square.
    assert time.perf_counter() - begin < 40
    keys = str(caught.value).split(": ")[1].split(" -> ")
    assert len(set(keys) - {"…"}) == 10
    assert all((int(after) - int(before)) % length == 1 for before, after in itertools.pairwise(keys[:10]))
    assert keys[-1] == ("…" if length > 10 else keys[0])


def test_errors_name_the_key():
    with pytest.raises(headrace.ArgumentNotPicklable, match=r"from_dict\(inc\): argument 'x'") as caught:
        Graph.from_dict({"a": 1, "b": (inc, threading.Lock())})
    assert caught.value.__notes__ == ["in the value of key 'b'"]


def test_lists_too_deep_are_refused():
    deep = "a"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(GraphError, match="nested more than 64 deep"):
        Graph.from_dict({"a": 1, "b": (give, deep)})


def test_a_mapping_that_changes_meanwhile_is_taken_as_it_was():
    class Growing:
        def __hash__(self):
            mapping[f"new-{len(mapping)}"] = 1
            return 5

    mapping = {}
    mapping.update({"a": (give, Growing()), "b": (inc, 1)})
    graph = Graph.from_dict(mapping)
    assert [node.key for node in graph] == ["a", "b"]
    assert len(mapping) > 2


def test_a_node_that_is_looked_at_before_its_task_is_there_tells_so():
    seen = []

    class Peeping:
        def __reduce__(self):
            for found in gc.get_objects():
                if type(found) is list and len(found) == 2 and found[1] is self and found[0] != "b":
                    node = found[0]
                    seen.append((node.key, repr(node), node.predecessors))
            return int, ()

    graph = Graph.from_dict({"a": (give, ["b", Peeping()]), "b": 1})
    assert seen
    assert all(key == "task 1 to come" and "task 1 to come" in text and not needs for key, text, needs in seen)
    assert evaluate(graph, graph["a"]) == (([1, 0],), {})
