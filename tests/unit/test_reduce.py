"""`Graph.reduce`: a tree of tasks."""

import pytest
from graph_tasks import concat, evaluate, inc, join

from headrace import Graph, GraphError, UsageError, task


@pytest.mark.parametrize("arity", [2, 3, 5, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 26])
def test_reduce_keeps_the_order(count, arity):
    graph = Graph()
    letters = [chr(ord("a") + number) for number in range(count)]
    nodes = graph.map(str, letters)
    assert evaluate(graph, graph.reduce(concat, nodes, arity)) == "".join(letters)
    assert evaluate(graph, graph.reduce(concat, nodes, arity, initial="_")) == "_" + "".join(letters)


def test_the_shape_of_a_reduction():
    graph = Graph()
    nodes = graph.map(str, list("abcde"))
    assert evaluate(graph, graph.reduce(join, nodes)) == "(((ab)(cd))e)"
    assert len(graph) == 5 + 4
    assert evaluate(graph, graph.reduce(join, nodes, arity=3)) == "(((ab)c)(de))"
    assert evaluate(graph, graph.reduce(join, list(nodes), initial="_")) == "(((_a)(bc))(de))"


def test_one_node_is_its_own_reduction():
    graph = Graph()
    nodes = graph.map(inc, [1])
    assert graph.reduce(concat, nodes) == nodes[0]
    assert len(graph) == 1


def test_nothing_reduces_to_the_initial_value():
    graph = Graph()
    with pytest.raises(GraphError, match=r"reduce\(\) of no nodes needs an initial value"):
        graph.reduce(concat, [])
    assert evaluate(graph, graph.reduce(concat, [], initial=[7])) == [7]
    assert evaluate(graph, graph.reduce(concat, [], initial=None)) is None


@pytest.mark.parametrize("arity", [2, 3])
def test_options_of_a_reduction_hold_for_each_task_and_the_key_for_the_root(arity):
    graph = Graph()
    root = graph.reduce(task(concat, key="all", priority=4), graph.map(inc, range(9)), arity)
    assert root.key == "all"
    assert evaluate(graph, root) == 45
    assert all(node.key.startswith("concat-") for node in graph.nodes[9:-1])


@pytest.mark.parametrize("arity", [1, 0, -1, 2.0, True, "2"])
def test_an_arity_that_makes_no_sense_is_refused(arity):
    with pytest.raises(UsageError, match="arity"):
        Graph().reduce(concat, [], arity)


def test_only_nodes_are_reduced():
    graph = Graph()
    node = graph.add(inc, 1)
    with pytest.raises(GraphError, match=r"folds the results of nodes, not int; .*map\(\)"):
        graph.reduce(concat, [node, 2])
    with pytest.raises(GraphError, match="a sequence of nodes, not one node"):
        graph.reduce(concat, node)
    with pytest.raises(GraphError, match="belongs to another graph"):
        graph.reduce(concat, [node, Graph().add(inc, 1)])
