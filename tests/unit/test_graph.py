"""Graphs under construction: `add`, keys, `subgraph`, `keep`, live objects, threads, and what is refused."""

import contextlib
import gc
import operator
import sys
import threading
import weakref

import pytest
from graph_tasks import Model, add, concat, evaluate, give, inc, join

import headrace
from headrace import Graph, GraphError, UsageError, task
from headrace._core import ClientCore, ExternalRef, Offer

# -- add ---------------------------------------------------------------------------------------------------------------


def test_nodes_stand_for_results_wherever_they_are():
    graph = Graph()
    one = graph.add(inc, 0)
    two = graph.add(inc, one)
    seen = graph.add(give, [one, {"two": two}], (two, [one]), key=one)
    assert evaluate(graph, seen) == (([1, {"two": 2}], (2, [1])), {"key": 1})
    assert [node.key for node in seen.predecessors] == ["inc-0", "inc-1"]


def test_every_keyword_belongs_to_the_function():
    graph = Graph()
    node = graph.add(give, fn=1, self=2, key=3, priority=4, verb=5)
    assert evaluate(graph, node) == ((), {"fn": 1, "self": 2, "key": 3, "priority": 4, "verb": 5})


def test_arguments_are_a_snapshot():
    graph = Graph()
    values = [1, 2]
    node = graph.add(add, 0, *values)
    seen = graph.add(give, values)
    values.append(3)
    assert evaluate(graph, node, seen) == [3, (([1, 2],), {})]


def test_a_method_is_captured_with_its_object():
    graph = Graph()
    model = Model(3)
    nodes = [graph.add(model.predict, number) for number in range(3)]
    assert evaluate(graph, *nodes) == [0, 3, 6]
    assert repr(graph) == "<Graph: 3 tasks, 0 edges, 1 function, 3 sinks>"
    assert [node.key for node in nodes] == ["predict-0", "predict-1", "predict-2"]


def test_functions_that_are_equal_are_one():
    graph = Graph()
    graph.add(inc, 1)
    graph.add(task(inc, priority=1), 1)
    graph.add(task(inc, priority=2), 1)
    graph.map(inc, [1])
    assert graph._counts()[2] == 1


class Counted:
    """It counts how often it is pickled."""

    def __init__(self):
        self.pickles = 0

    def __reduce__(self):
        self.pickles += 1
        return int, ()


@pytest.mark.parametrize("options", [{}, {"retry_on": OSError, "retries": 1}, {"writable": "number"}], ids=str)
def test_options_are_no_part_of_a_function(options):
    counted = Counted()
    fn = task(lambda number: (number, counted), **options)
    graph = Graph()
    for number in range(10):
        graph.add(fn.options(key=f"number {number}", priority=number), number)
    assert graph._counts()[2] == 1
    assert counted.pickles == 1


@pytest.mark.parametrize("fn", [1, None, "inc", [inc]])
@pytest.mark.parametrize("verb", ["add", "map"])
def test_what_cannot_be_called_is_refused(fn, verb):
    with pytest.raises(UsageError, match=f"{verb}\\(\\) takes a function to run, not {type(fn).__name__}"):
        getattr(Graph(), verb)(fn, [1])


async def coroutine():
    return 1


async def generator():
    yield 1


class AsyncCall:
    async def __call__(self):
        return 1


@pytest.mark.parametrize("fn", [coroutine, generator, AsyncCall(), task(coroutine)])
def test_async_functions_are_refused(fn):
    with pytest.raises(
        UsageError, match=r"an async function cannot be a task; give a plain one that calls asyncio\.run"
    ):
        Graph().add(fn)


def test_a_verb_without_a_function_is_refused():
    with pytest.raises(TypeError, match=r"add\(\) needs the function as its first argument"):
        Graph().add()
    with pytest.raises(TypeError, match=r"map\(\) needs the function as its first argument"):
        Graph().map()
    with pytest.raises(TypeError, match=r"map\(\) needs at least one iterable"):
        Graph().map(inc)


def test_a_refused_task_leaves_nothing_behind():
    graph = Graph()
    one = graph.add(inc, 1)
    with pytest.raises(headrace.ArgumentNotPicklable):
        graph.add(give, one, threading.Lock())
    with pytest.raises(headrace.ArgumentNotPicklable):
        graph.map(give, [1, 2, threading.Lock()])
    assert len(graph) == 1
    assert graph._counts() == (1, 0, 1, 1)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_are_names_and_indices():
    graph = Graph()
    graph.add(inc, 1)
    graph.add(lambda: 1)
    graph.add(operator.itemgetter(0), [1])
    assert [node.key for node in graph] == ["inc-0", "lambda-1", "itemgetter-2"]
    assert graph["lambda-1"].index == 1
    assert "inc-0" in graph
    for missing in ("inc-1", "inc", "inc-00", "inc-7", ""):
        assert missing not in graph
        with pytest.raises(KeyError, match="no task of this graph has the key"):
            graph[missing]


def test_an_option_gives_a_key():
    graph = Graph()
    node = graph.add(task(inc, key="first"), 1)
    assert node.key == "first"
    assert graph["first"] == node
    assert "inc-0" not in graph


def test_keys_are_unique():
    graph = Graph()
    once = task(inc, key="once")
    graph.add(once, 1)
    with pytest.raises(GraphError, match="duplicate key 'once'"):
        graph.add(once, 2)
    with pytest.raises(GraphError, match="duplicate key 'twice'"):
        graph.map(task(inc, key="twice"), [1, 2])
    assert graph.map(task(inc, key="alone"), [1])[0].key == "alone"


def test_a_given_key_never_meets_a_default_one():
    graph = Graph()
    graph.add(inc, 1)
    with pytest.raises(GraphError, match="duplicate key 'inc-0'"):
        graph.add(task(inc, key="inc-0"), 1)
    graph.add(task(add, key="inc-3"), 1)
    graph.add(inc, 1)
    with pytest.raises(GraphError, match="duplicate key 'inc-3'"):
        graph.add(inc, 1)
    graph.add(add, 1)
    assert [node.key for node in graph] == ["inc-0", "inc-3", "inc-2", "add-3"]
    assert graph["inc-3"].index == 1


# -- subgraph and keep -------------------------------------------------------------------------------------------------


def test_a_subgraph_has_the_ancestors_and_keeps_keys():
    graph = Graph()
    nodes = graph.map(inc, range(4))
    graph.add(add, *nodes)
    wanted = graph.add(task(add, key="wanted"), nodes[1], nodes[3])
    other = graph.add(concat, nodes[0], wanted)
    sub = graph.subgraph([wanted])
    assert type(sub) is Graph
    assert [node.key for node in sub] == ["inc-1", "inc-3", "wanted"]
    assert evaluate(sub, sub["wanted"]) == 6
    assert len(graph.subgraph(["wanted", other])) == 5
    assert len(graph.subgraph(nodes)) == 4
    assert sub.add(inc, sub["inc-3"]).key == "inc-7"
    assert sub.map(inc, range(2)).keys == ["inc-8", "inc-9"]
    assert sub["inc-9"].index == 5
    assert sub.subgraph(["inc-8"]).add(inc, 1).key == "inc-10"
    with pytest.raises(GraphError, match="duplicate key 'inc-3'"):
        sub.add(task(inc, key="inc-3"), 1)
    sub.add(task(inc, key="inc-11"), 1)
    with pytest.raises(GraphError, match="duplicate key 'inc-11'"):
        sub.add(inc, 1)
    assert len(graph) == 7
    with pytest.raises(GraphError, match=r"subgraph\(\) names the key 'x'"):
        graph.subgraph(["x"])


def test_a_subgraph_of_live_objects_has_them_too():
    graph = Graph(by_reference=True)
    lock = threading.Lock()
    node = graph.add(give, lock)
    sub = graph.subgraph(node)
    assert sub.by_reference
    assert evaluate(sub, sub[node.key])[0][0] is lock


def test_keep_names_tasks_in_order_and_once():
    graph = Graph()
    nodes = graph.map(inc, range(5))
    last = graph.add(task(add, key="last"), *nodes)
    assert graph._keep() == graph._keep(None) == [5]
    assert graph._keep(nodes[2]) == [2]
    assert graph._keep(["last", nodes[3:], nodes[4], (last, "inc-0")]) == [5, 3, 4, 0]
    assert graph._keep([]) == []
    with pytest.raises(GraphError, match="keep names the key 'x', which no task of the graph has"):
        graph._keep(["x"])
    with pytest.raises(GraphError, match="keep takes nodes, keys and sequences of them, not int"):
        graph._keep([3])
    with pytest.raises(GraphError, match="not dict"):
        graph._keep({"last": 1})
    with pytest.raises(GraphError, match="belongs to another graph"):
        graph._keep(Graph().add(inc, 1))


# -- by reference ------------------------------------------------------------------------------------------------------


def test_live_objects_stay_what_they_are():
    graph = Graph(by_reference=True)
    node = graph.add(inc, 1)
    lock, values = threading.Lock(), [1, 2]
    (seen_lock, seen_values, seen), kwargs = evaluate(graph, graph.add(give, lock, values, [node, lock], x=(node,)))
    assert seen_lock is lock
    assert seen_values is values
    assert seen == [2, lock]
    assert kwargs == {"x": (2,)}
    assert evaluate(graph, graph.add(lambda: lock)) is lock


def test_live_objects_in_map():
    graph = Graph(by_reference=True)
    lock = threading.Lock()
    nodes = graph.map(give, [lock, graph.add(inc, 1)], lock=lock, n=1)
    assert evaluate(graph, *nodes) == [((lock,), {"lock": lock, "n": 1}), ((2,), {"lock": lock, "n": 1})]


# -- threads -----------------------------------------------------------------------------------------------------------


def test_several_threads_build_one_graph():
    graph = Graph()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def build():
            node = graph.add(inc, 0)
            for _ in range(1_000):
                node = graph.add(inc, node)
            last.append(node)

        last = []
        threads = [threading.Thread(target=build) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(graph) == 4 * 1_001
    assert evaluate(graph, *last) == [1_001] * 4


def test_an_argument_may_build_graphs_while_it_is_pickled():
    graph, other = Graph(), Graph()
    node = graph.add(inc, 1)

    class Nested:
        def __reduce__(self):
            graph.add(inc, 5)
            inner = other.add(give, complex(1), other.add(inc, 1))
            assert evaluate(other, inner) == ((1 + 0j, 2), {})
            return give, (node,)

    seen = graph.add(give, Nested(), node)
    assert evaluate(graph, seen) == ((((2,), {}), 2), {})
    assert len(graph) == 3


def test_live_objects_may_share_what_they_hold():
    shared = [1] * 40
    for _ in range(6):
        shared = [shared] * 40
    graph = Graph(by_reference=True)
    node = graph.add(inc, 0)
    seen = graph.add(give, shared, [shared, (node,)], {"in": shared})
    ((first, (second, third), table), _) = evaluate(graph, seen)
    assert first is second is table["in"] is shared
    assert third == (1,)


def test_nodes_are_found_below_containers_that_were_seen_deeper_down():
    graph = Graph(by_reference=True)
    node = graph.add(inc, 0)
    deep = [[[[node]]]]
    low = [deep]
    for _ in range(4):
        low = [low]
    ((first, second), _) = evaluate(graph, graph.add(give, low, deep))
    assert second == [[[[1]]]]
    assert first[0][0][0][0][0] is deep  # deeper than nodes are looked for

    loop = []
    loop.append(loop)
    ((same, number), _) = evaluate(graph, graph.add(give, loop, [node]))
    assert same is loop
    assert number == [1]


# -- errors leave nothing behind ---------------------------------------------------------------------------------------


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not this one")


def tell(graph):
    return len(graph), graph._counts(), [node.key for node in graph]


def grow(graph):
    """A graph with a task of its own key, and one whose key looks like that of a task to come."""
    nodes = graph.map(inc, range(5))
    graph.add(task(inc, key="taken"), 1)
    graph.add(task(inc, key="add-8"), 1)
    return nodes


LONG = bytes(100_000)

MISTAKES = {
    "add": lambda graph, nodes: graph.add(task(add, key="taken"), nodes),
    "add, argument": lambda graph, nodes: graph.add(add, [nodes[0], Unpicklable()]),
    "map": lambda graph, nodes: graph.map(task(add, key="new"), nodes),
    "map, constant": lambda graph, nodes: graph.map(task(give, key="new"), [1, 2], c=LONG),
    "map, one taken": lambda graph, nodes: graph.map(task(give, key="taken"), [1], c=LONG, d=LONG),
    "map, constant's key": lambda graph, nodes: graph.map(task(give, key="constant-7"), [1], c=LONG),
    "map, argument": lambda graph, nodes: graph.map(give, [1, Unpicklable()], c=LONG),
    "map, uneven": lambda graph, nodes: graph.map(give, [1, 2], iter([1]), c=LONG),
    "map, default keys": lambda graph, nodes: graph.map(add, [1, 2, 3], c=LONG),
    "reduce": lambda graph, nodes: graph.reduce(task(add, key="taken"), nodes),
    "reduce, default keys": lambda graph, nodes: graph.reduce(add, nodes),
    "reduce, key below": lambda graph, nodes: graph.reduce(task(join, key="join-9"), nodes),
    "reduce, initial": lambda graph, nodes: graph.reduce(task(add, key="taken"), nodes, initial=[1]),
    "reduce, bad initial": lambda graph, nodes: graph.reduce(join, nodes, initial=Unpicklable()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_fails_changes_nothing(mistake):
    graph = Graph()
    nodes = grow(graph)
    before = tell(graph)
    for _ in range(2):
        with pytest.raises((GraphError, UsageError)):
            MISTAKES[mistake](graph, nodes)
        assert tell(graph) == before
    assert evaluate(graph, *nodes) == [1, 2, 3, 4, 5]
    graph.add(inc, nodes[0])
    graph.map(give, [1, 2], c=LONG)
    assert len(graph) == 7 + 1 + 3


def test_the_keys_of_a_reduction_in_a_subgraph_are_unique():
    graph = Graph()
    part = graph.subgraph(graph.map(inc, range(5))[3:])
    assert [node.key for node in part] == ["inc-3", "inc-4"]
    for key in ("join-5", "join-6", "inc-4"):
        with pytest.raises(GraphError, match=f"duplicate key '{key}'"):
            part.reduce(task(join, key=key), [*part, *part])
        assert len(part) == 2
    part.reduce(task(join, key="join-7"), [*part, *part])
    assert [node.key for node in part][2:] == ["join-5", "join-6", "join-7"]


def test_nothing_to_map_adds_nothing():
    graph = Graph()
    nodes = grow(graph)
    before = tell(graph)
    for numbers in ([], range(0), iter(())):
        assert len(graph.map(give, numbers, c=LONG)) == len(graph.map(task(give, key="taken"), numbers)) == 0
        assert len(graph.map(give, numbers, c=nodes, d=LONG)) == 0
    assert tell(graph) == before


@pytest.mark.parametrize("by_reference", [False, True])
def test_failed_tasks_keep_no_argument_alive(by_reference):
    class Thing:
        def __reduce__(self):
            return int, ()

    class Wrong(ExternalRef):
        run = "no number"

    core = ClientCore.local(1, Offer())
    graph = Graph(by_reference=by_reference)
    graph.add(task(inc, key="taken"), 1)
    given, wrong = [Thing(), ExternalRef(core, 1, 5)], Wrong(core, 1, 5)
    gone = [weakref.ref(thing) for thing in given]
    for mistake in (
        lambda: graph.add(inc, *given, [given[1], wrong]),
        lambda: graph.map(inc, [tuple(given), wrong]),
        lambda: graph.add(task(inc, key="taken"), *given),
        lambda: graph.map(task(inc, key="taken"), given[:1], given[1:]),
        lambda: graph.reduce(task(inc, key="taken"), graph.nodes, initial=list(given)),
    ):
        with contextlib.suppress(GraphError, UsageError, TypeError):
            mistake()
    assert len(graph) == 1
    given.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    core.close()
