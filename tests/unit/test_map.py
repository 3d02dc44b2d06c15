"""`Graph.map`: many tasks in one verb."""

import subprocess
import sys

import pytest
from graph_tasks import add, evaluate, give, inc

from headrace import Graph, GraphError


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda numbers: (number for number in numbers), dict.fromkeys])
def test_map_makes_a_task_for_each_element(kind):
    numbers = kind([3, 1, 2])
    graph = Graph()
    nodes = graph.map(inc, numbers.keys() if isinstance(numbers, dict) else numbers)
    assert len(nodes) == len(graph) == 3
    assert evaluate(graph) == [4, 2, 3]
    assert len(graph.map(inc, kind([]) or [])) == 0


def test_a_range_gives_its_numbers():
    for numbers in (range(5), range(-200, 200, 7), range(10, -10, -3), range(2**40, 2**40 + 3), range(0), range(3, 1)):
        graph = Graph()
        graph.map(inc, numbers)
        assert evaluate(graph) == [number + 1 for number in numbers]
    graph = Graph()
    graph.map(inc, range(2**70, 2**70 + 2))
    assert evaluate(graph) == [2**70 + 1, 2**70 + 2]


@pytest.mark.parametrize(
    "numbers",
    [
        range(2**62, 2**64 + 2**62, 2**62),
        range(2**63 - 3, 2**63 + 3),
        range(-(2**63) + 1, -(2**64), -(2**62)),
        range(2**63 - 2, 2**63),
        range(-(2**63), -(2**63) + 2),
        range(2**31 - 2, 2**31 + 2),
    ],
)
def test_a_range_may_pass_the_borders_of_machine_integers(numbers):
    graph = Graph()
    nodes = graph.map(give, numbers)
    assert evaluate(graph, *nodes) == [((number,), {}) for number in numbers]


@pytest.mark.parametrize("numbers", [range(2**31), range(10**12), range(2**64), range(0, -(2**80), -1)])
def test_a_range_beyond_the_limit_of_tasks_is_refused_at_once(numbers):
    graph = Graph()
    for constants in ({}, {"bound": 1}):
        with pytest.raises(GraphError, match="at most 2,147,483,647 tasks"):
            graph.map(inc, numbers, **constants)
    with pytest.raises(GraphError, match="at most 2,147,483,647 tasks"):
        graph.map(add, numbers, numbers)
    with pytest.raises(GraphError, match="equally long"):
        graph.map(add, [1], numbers)
    assert len(graph) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited by Linux's means")
def test_a_range_beyond_the_memory_is_a_memory_error():
    code = """if 1:
        import resource, headrace
        graph = headrace.Graph()
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        try:
            graph.map(len, range(2**31 - 3))
        except MemoryError:
            print(len(graph))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_map_steps_through_iterables_together():
    graph = Graph()
    nodes = graph.map(give, [1, 2], iter(["a", "b"]), mode="w", how=[1])
    assert evaluate(graph, *nodes) == [((1, "a"), {"mode": "w", "how": [1]}), ((2, "b"), {"mode": "w", "how": [1]})]


def test_map_takes_nodes_as_elements_and_constants():
    graph = Graph()
    ones = graph.map(inc, [0, 1, 2])
    nodes = graph.map(give, ones, ones[::-1], rest=ones, first=ones[0])
    assert evaluate(graph, nodes[1]) == ((2, 2), {"rest": [1, 2, 3], "first": 1})
    assert evaluate(graph, nodes[0]) == ((1, 3), {"rest": [1, 2, 3], "first": 1})


@pytest.mark.parametrize("lengths", [(2, 3), (3, 2), (0, 1), (1, 0), (2, 2, 1), (1, 2, 2)])
def test_unequal_lengths_are_refused(lengths):
    graph = Graph()
    shortest = min(lengths)
    text = f"iterable {lengths.index(shortest) + 1} ends after step {shortest}, another goes on"
    with pytest.raises(GraphError, match=text):
        graph.map(give, *(iter(range(length)) for length in lengths))
    assert len(graph) == 0


@pytest.mark.parametrize(
    ("iterable", "text"),
    [
        ("abc", "a str; wrap it in a list"),
        (b"abc", "bytes; wrap them in a list"),
        (bytearray(b"abc"), "bytes; wrap them in a list"),
        ({"a": 1}, r"a dict; write \.keys\(\), \.values\(\) or \.items\(\)"),
        ({1, 2}, r"a set, which has no order; write sorted\(values\)"),
        (frozenset({1}), "a set, which has no order"),
    ],
)
def test_map_refuses_what_was_hardly_meant(iterable, text):
    with pytest.raises(GraphError, match=text):
        Graph().map(inc, iterable)
    with pytest.raises(GraphError, match=text):
        Graph().map(add, [1], iterable)


def test_map_refuses_a_bare_node():
    graph = Graph()
    node = graph.add(divmod, 1, 2)
    with pytest.raises(GraphError, match=r"one node, whose result is not known yet; use add\(fn, node\)"):
        graph.map(inc, node)


def test_map_refuses_what_does_not_iterate():
    with pytest.raises(TypeError, match="not iterable"):
        Graph().map(inc, 3)


def test_an_error_of_the_iterable_is_its_own():
    def broken():
        yield 1
        raise LookupError("at the second")

    graph = Graph()
    with pytest.raises(LookupError, match="at the second"):
        graph.map(inc, broken())
    assert len(graph) == 0


def test_a_long_constant_is_one_task():
    graph = Graph()
    table = list(range(50_000))
    nodes = graph.map(give, range(50), table=table, name="x")
    assert len(graph) == 51
    assert len(nodes) == 50
    assert evaluate(graph, nodes[0], nodes[49]) == [((i,), {"table": table, "name": "x"}) for i in (0, 49)]
    assert graph._counts()[1] == 50


def test_map_may_build_its_own_graph_meanwhile():
    graph = Graph()
    nodes = graph.map(inc, (graph.add(inc, number) for number in range(3)))
    assert evaluate(graph, *nodes) == [2, 3, 4]
