"""Nodes and sequences of nodes: handles to tasks."""

import collections.abc
import copy
import gc
import pickle
import weakref

import pytest
from graph_tasks import add, evaluate, give, inc

from headrace import Graph, GraphError, task

# -- nodes -------------------------------------------------------------------------------------------------------------


def foreign_arguments(node):
    return [(node,), ([node],), ({"a": (node,)},), ({node},), ([node] * 100,)]


@pytest.mark.parametrize("shape", range(5))
def test_a_node_of_another_graph_is_refused_with_the_remedy(shape):
    other = Graph()
    node = other.add(inc, 1)
    with pytest.raises(GraphError, match=r"node 'inc-0' belongs to another graph; .*`run\.ref\(node\)`"):
        Graph().add(give, *foreign_arguments(node)[shape])
    with pytest.raises(GraphError, match=r"<Nodes: 2, 'inc-1' … 'inc-2'> belongs to another graph"):
        Graph().add(give, other.map(inc, [1, 2]))


def test_a_node_is_its_task():
    graph = Graph()
    node = graph.add(inc, 1)
    assert node == graph["inc-0"] == graph.nodes[0]
    assert hash(node) == hash(graph["inc-0"])
    assert node != graph.add(inc, 1)
    assert node != Graph().add(inc, 1)
    assert node.graph is graph
    assert node.index == 0
    assert copy.copy(node) is node
    assert copy.deepcopy([node])[0] is node


def test_nodes_know_no_pickle_of_their_own():
    graph = Graph()
    with pytest.raises(GraphError, match=r"node 'inc-0' cannot be pickled outside its graph; .*run\.ref"):
        pickle.dumps(graph.add(inc, 1))


def test_neither_nodes_nor_graphs_without_cycles_need_the_collector():
    graph = Graph()
    node = graph.add(inc, [1, 2])
    assert not gc.is_tracked(node)
    gone = weakref.ref(graph)
    del graph
    assert gone() is not None
    del node
    assert gone() is None


def test_a_cycle_through_a_graph_is_collected():
    graph = Graph(by_reference=True)

    graph.add(give, [graph])
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None


def test_representations_say_counts():
    graph = Graph()
    assert repr(graph) == "<Graph: 0 tasks, 0 edges, 0 functions, 0 sinks>"
    first = graph.add(inc, 1)
    nodes = graph.map(add, [1, 2], [first, first])
    assert repr(graph) == "<Graph: 3 tasks, 2 edges, 2 functions, 2 sinks>"
    assert repr(first) == "<Node 'inc-0' of a graph of 3 tasks, no predecessors>"
    assert repr(nodes[0]) == "<Node 'add-1' of a graph of 3 tasks, 1 predecessor>"
    assert repr(nodes) == "<Nodes: 2, 'add-1' … 'add-2'>"
    assert "<td>3</td><td>2</td>" in graph._repr_html_()
    assert first._repr_html_() == "<code>&lt;Node 'inc-0' of a graph of 3 tasks, no predecessors&gt;</code>"
    assert nodes._repr_html_().startswith("<code>&lt;Nodes: 2")


# -- splitting ---------------------------------------------------------------------------------------------------------


def test_the_assignment_says_how_many_items_there_are():
    graph = Graph()
    node = graph.add(divmod, 17, 5)
    quotient, remainder = node
    assert evaluate(graph, quotient, remainder) == [3, 2]
    (alone,) = graph.add(list, [7])
    assert evaluate(graph, alone) == 7


def test_splitting_again_finds_the_same_tasks():
    graph = Graph()
    node = graph.add(divmod, 17, 5)
    quotient, remainder = node
    again, _ = node
    assert again == quotient
    assert len(graph) == 3
    assert [quotient.key, remainder.key] == ["item-1", "item-2"]


def test_an_option_says_how_many_items_there_are():
    graph = Graph()
    parts = list(graph.add(task(divmod, nout=2), 17, 5))
    assert evaluate(graph, *parts) == [3, 2]
    assert [len([*node]) for node in graph.map(task(divmod, nout=2), [1, 2], [3, 4])] == [2, 2]


def test_what_says_no_count_is_refused():
    graph = Graph()
    node = graph.add(divmod, 17, 5)
    with pytest.raises(GraphError, match=r"node 'divmod-0' can only be split.*options\(nout=…\)"):
        list(node)
    with pytest.raises(GraphError, match="nout"):
        _first, *_rest = node
    with pytest.raises(GraphError, match="nout"):
        for _item in node:
            pass
    assert len(graph) == 1


@pytest.mark.parametrize(("value", "text"), [((1, 2, 3), "too many values to unpack"), ((1,), "not enough values")])
def test_a_result_of_another_length_fails_its_items(value, text):
    graph = Graph()
    left, _right = graph.add(tuple, list(value))
    with pytest.raises(ValueError, match=f"{text}.*expected 2, got {len(value)}"):
        evaluate(graph, left)


# -- Nodes -------------------------------------------------------------------------------------------------------------


def test_nodes_are_an_immutable_sequence():
    graph = Graph()
    nodes = graph.map(inc, range(6))
    assert isinstance(nodes, collections.abc.Sequence)
    assert list(nodes) == [nodes[i] for i in range(6)] == [graph[f"inc-{i}"] for i in range(6)]
    assert nodes[-1].key == "inc-5"
    assert nodes[1:3].keys == ["inc-1", "inc-2"]
    assert nodes[::-2].keys == ["inc-5", "inc-3", "inc-1"]
    assert nodes[::-2][1:].keys == ["inc-3", "inc-1"]
    assert nodes[4:2].keys == []
    assert list(reversed(nodes)) == list(nodes)[::-1]
    assert nodes[2] in nodes
    assert nodes[2] not in nodes[3:]
    assert "inc-2" not in nodes
    assert nodes.index(nodes[4]) == 4
    assert nodes[::-1].index(nodes[4]) == 1
    assert (nodes.count(nodes[4]), nodes.count(graph.add(inc, 1))) == (1, 0)
    assert nodes[1:] == nodes[1:6]
    assert hash(nodes[1:]) == hash(nodes[1:6])
    assert nodes != nodes[1:]
    assert not nodes[:0]
    with pytest.raises(IndexError, match="there are 6"):
        nodes[6]
    with pytest.raises(TypeError, match=r"by key: graph\[key\]"):
        nodes["inc-1"]
    with pytest.raises(TypeError):
        nodes[0] = nodes[1]
    with pytest.raises(ValueError, match="not in these Nodes"):
        nodes[:2].index(nodes[4])


def test_nodes_are_an_argument_at_any_depth():
    graph = Graph()
    nodes = graph.map(inc, range(4))
    seen = graph.add(give, nodes, {"part": nodes[1:3]}, [nodes[::-1]], nodes[2])
    assert evaluate(graph, seen) == (([1, 2, 3, 4], {"part": [2, 3]}, [[4, 3, 2, 1]], 3), {})
    assert len(seen.predecessors) == 4


def test_many_nodes_in_a_list_are_one_range():
    graph = Graph()
    nodes = graph.map(inc, range(1_000))
    for argument in (nodes, list(nodes), list(nodes)[::-1], [nodes[7], *nodes]):
        seen = graph.add(give, argument, nodes[3])
        assert evaluate(graph, seen)[0][0] == [node.index + 1 for node in argument]
        assert len(seen.predecessors) == 1_000
