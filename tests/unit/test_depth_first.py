"""`depth_first`: which of many orders, over keys of any kind, and what it does not look at."""

import pytest

import headrace as hr


def needs_of(graph):
    return graph.__getitem__


def test_each_task_comes_behind_what_it_needs_and_the_wider_branch_first():
    graph = {"leaf": [], "a": [], "b": [], "c": ["a", "b"], "top": ["leaf", "c"]}
    assert hr.depth_first(needs_of(graph), ["top"]) == ["a", "b", "c", "leaf", "top"]
    assert hr.depth_first(needs_of(graph), ["leaf", "c"]) == ["leaf", "a", "b", "c"]
    assert hr.depth_first(needs_of(graph), []) == []


def test_the_order_of_needs_decides_where_nothing_else_does():
    graph = {(name, 0): [] for name in "abc"}
    for order in ([("c", 0), ("a", 0), ("b", 0)], [("b", 0), ("c", 0), ("a", 0)]):
        assert hr.depth_first(needs_of(graph | {"top": order}), ["top"]) == [*order, "top"]


def test_only_what_is_needed_is_asked_for_and_once():
    graph = {"a": [], "b": ["a"], "c": ["a", "b"], "other": ["missing"]}
    asked = []

    def needs(key):
        asked.append(key)
        return graph[key]

    assert hr.depth_first(needs, ["c", "c"]) == ["a", "b", "c"]
    assert sorted(asked) == ["a", "b", "c"]


def test_what_is_there_already_is_no_part_of_the_order():
    graph = {"there": None, "a": ["there", "before"], "b": ["a", "there"]}
    assert hr.depth_first(graph.get, ["b", "there"]) == ["a", "b"]


def test_errors_of_needs_and_cycles_are_raised():
    graph = {"a": ["b"], "b": ["a"], "c": ["missing"]}
    with pytest.raises(hr.GraphError, match="cycle of 2 tasks that wait for each other: a -> b -> a"):
        hr.depth_first(needs_of(graph), ["a"])
    with pytest.raises(KeyError, match="missing"):
        hr.depth_first(needs_of(graph), ["c"])
    with pytest.raises(TypeError):
        hr.depth_first(lambda key: [[]], ["a"])


def test_levels_are_used_where_it_pays_that_ready_tasks_wait():
    side = range(8)
    blocks = {("block", row, column): [] for row in side for column in side}
    products = {
        ("product", one, other, column): sorted({("block", one, column), ("block", other, column)})
        for one in side
        for other in side
        for column in side
    }
    sums = {("sum", one, other): [("product", one, other, column) for column in side] for one in side for other in side}
    graph = {**blocks, **products, **sums, "total": list(sums)}
    order = hr.depth_first(needs_of(graph), ["total"], levels=16)
    assert order[-1] == ("total", -15)
    priorities = [priority for _, priority in order]
    assert priorities == sorted(priorities, reverse=True)
    assert set(priorities) == set(range(-15, 1))
    assert len(hr.depth_first(needs_of(graph), ["total"])) == len(order) == len(graph)
    tree = {0: [1, 2], 1: [], 2: []}
    assert hr.depth_first(needs_of(tree), [0], levels=16) == [(1, 0), (2, 0), (0, 0)]
    assert hr.depth_first(needs_of(tree), [], levels=16) == []
