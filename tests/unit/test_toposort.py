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
