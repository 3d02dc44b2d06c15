"""`TopologicalSorter` against graphlib: CPython's own tests, and random graphs side by side."""

import gc
import graphlib
import itertools
import random
import types
import unittest
import weakref

import pytest

import headrace as hr


def test_cpythons_own_tests_pass(monkeypatch):
    suite = pytest.importorskip("test.test_graphlib", reason="this CPython ships no tests of its own")
    ours = types.SimpleNamespace(TopologicalSorter=hr.TopologicalSorter, CycleError=graphlib.CycleError)
    monkeypatch.setattr(suite, "graphlib", ours)
    # One case runs a script of its own in another interpreter; it is to test ours there as well.
    run = suite.assert_python_ok
    monkeypatch.setattr(
        suite,
        "assert_python_ok",
        lambda flag, code, **env: run(flag, code.replace("import graphlib", "import headrace as graphlib"), **env),
    )
    cases = unittest.defaultTestLoader.loadTestsFromTestCase(suite.TestTopologicalSort)
    result = unittest.TestResult()
    cases.run(result)
    assert result.testsRun >= 10
    assert not result.failures + result.errors, (result.failures + result.errors)[0][1]


def groups(sorter):
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        yield set(ready)
        sorter.done(*ready)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_come_out_as_from_graphlib(seed):
    chance = random.Random(seed)
    count = chance.randrange(1, 60)
    graph = {node: [chance.randrange(count) for _ in range(chance.randrange(4))] for node in range(count)}
    if seed % 2:  # no cycle
        graph = {node: [below for below in others if below < node] for node, others in graph.items()}
    try:
        expected = list(groups(graphlib.TopologicalSorter(graph)))
    except graphlib.CycleError:
        with pytest.raises(graphlib.CycleError) as caught:
            list(groups(hr.TopologicalSorter(graph)))
        cycle = caught.value.args[1]
        assert cycle[0] == cycle[-1]
        assert all(earlier in graph[later] for earlier, later in itertools.pairwise(cycle))
    else:
        assert list(groups(hr.TopologicalSorter(graph))) == expected


def test_a_node_that_refers_to_its_sorter_is_collected():
    class Node:
        pass

    node = Node()
    node.sorter = hr.TopologicalSorter({node: []})
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (lambda sorter: sorter.get_ready(), "prepare"),
        (lambda sorter: sorter.done("a"), "prepare"),
        (lambda sorter: (sorter.prepare(), sorter.prepare()), "more than once"),
        (lambda sorter: (sorter.prepare(), sorter.add("z")), "after a call to prepare"),
        (lambda sorter: (sorter.prepare(), sorter.done("b")), "not passed out"),
        (lambda sorter: (sorter.prepare(), sorter.done("?")), "not added"),
    ],
)
def test_misuse_is_a_value_error(misuse, text):
    with pytest.raises(ValueError, match=text):
        misuse(hr.TopologicalSorter({"b": {"a"}}))


class Meddler:
    """A node that does something while it is hashed for the n-th time."""

    def __init__(self, when, act):
        self.when, self.act = when, act

    def __hash__(self):
        self.when -= 1
        if self.when == 0:
            self.act()
        return 7

    def __eq__(self, other):
        return self is other

    def __repr__(self):
        return "meddler"


@pytest.mark.parametrize("when", range(1, 4))
@pytest.mark.parametrize("as_predecessor", [False, True])
def test_nodes_that_come_while_another_is_hashed_keep_their_numbers(when, as_predecessor):
    sorter = hr.TopologicalSorter()
    meddler = Meddler(when, lambda: sorter.add("late", "before"))
    if as_predecessor:
        sorter.add("other", meddler)
    else:
        sorter.add(meddler, "other")
    sorter.add("late", "before")
    sorter.add("last", meddler, "late")
    first, second = ("before", meddler), ("late", "other")
    if not as_predecessor:
        first, second = ("before", "other"), ("late", meddler)
    assert list(groups(sorter)) == [set(first), set(second), {"last"}]


def test_a_node_that_adds_itself_while_it_is_hashed_is_one_node():
    sorter = hr.TopologicalSorter()
    node = Meddler(2, lambda: sorter.add(node, "before"))
    sorter.add(node, "other")
    assert list(groups(sorter)) == [{"before", "other"}, {node}]


def test_prepare_while_a_node_is_hashed_leaves_that_node_out():
    sorter = hr.TopologicalSorter({"x": ["y"]})
    node = Meddler(2, sorter.prepare)
    with pytest.raises(ValueError, match="after a call to prepare"):
        sorter.add(node, "z")
    with pytest.raises(ValueError, match="not passed out"):
        sorter.done(node)
    assert sorter.get_ready() == ("y",)
    sorter.done("y")
    assert sorter.get_ready() == ("x",)
    sorter.done("x")
    assert not sorter


def test_a_node_that_fails_to_be_hashed_is_not_there():
    def fail():
        raise RuntimeError("no hash today")

    sorter = hr.TopologicalSorter({"x": ["y"]})
    node = Meddler(2, fail)
    with pytest.raises(RuntimeError, match="no hash"):
        sorter.add(node)
    sorter.add("a", "b")
    sorter.add("b", "a")
    with pytest.raises(graphlib.CycleError) as caught:
        sorter.prepare()
    assert set(caught.value.args[1]) == {"a", "b"}
    assert sorter.get_ready() == ("y",)


@pytest.mark.parametrize("module", [graphlib, hr])
def test_signatures_are_those_of_graphlib(module):
    class Named(module.TopologicalSorter):
        def __init__(self, name, graph=None):
            super().__init__(graph=graph)
            self.name = name

    sorter = Named("mine", {"b": ["a"]})
    assert sorter.name == "mine"
    sorter.add(node="c")
    assert list(groups(sorter)) == [{"a", "c"}, {"b"}]
    with pytest.raises(TypeError):
        module.TopologicalSorter({}, {})
    with pytest.raises(TypeError):
        sorter.add()
    with pytest.raises(TypeError):
        sorter.add("d", node="e")
    with pytest.raises(AttributeError):
        module.TopologicalSorter(5)


def test_groups_come_in_the_same_order_each_time():
    chance = random.Random(1)
    graph = {node: [chance.randrange(node) for _ in range(3)] for node in range(1, 200)}

    def orders():
        sorter = hr.TopologicalSorter(graph)
        sorter.prepare()
        while sorter:
            ready = sorter.get_ready()
            yield ready
            sorter.done(*ready)

    assert list(orders()) == list(orders())
