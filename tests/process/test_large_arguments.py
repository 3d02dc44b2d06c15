"""Large arguments, with real processes: written into shared memory once when they are submitted, seen by every task.

Memory is measured as in the tests of shared memory, so each test that looks at it has a client of its own.
"""

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from large_tasks import (  # noqa: E402
    Measurement,
    address,
    address_and_total,
    arrays_in,
    filled,
    lies_in_block,
    look,
    same,
    sum_once_per_marker,
    total,
)
from test_shared_memory import ARRAY_BYTES, ITEMS, MIB, SLACK_BYTES, run_script, shared_bytes, value_of  # noqa: E402

import headrace as hr  # noqa: E402

TIMEOUT_S = 30
#: What a run without large arguments may leave in private memory.
PRIVATE_SLACK_BYTES = 2 * MIB


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2) as client:
        yield client


@pytest.fixture
def own_client():
    """A client whose memory nobody else has used."""
    with hr.Client(workers=2) as client:
        yield client


@pytest.fixture
def pipe(tmp_path):
    """A pipe that tasks wait at: they go on once the text "go" is written."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def private_bytes():
    """Memory of this process that it shares with nobody."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def results_of(client, graph, keep=None):
    return client.submit(graph, keep=keep).results(timeout=TIMEOUT_S)


def wait_at(pipe, value):
    assert Path(pipe).read_text() == "go"
    return value


def head_and_tail(value, *_more):
    return head(value), head(value[::-1]), len(value)


def head(value):
    return str(value[0])[:20]


# -- one copy ----------------------------------------------------------------------------------------------------------


def test_an_array_of_many_tasks_takes_memory_once(own_client):
    array = np.ones(ITEMS)
    results_of(own_client, graph_of_totals(np.ones(3), 4))
    shared, private = shared_bytes(), private_bytes()
    run = own_client.submit(graph_of_totals(array, 100))
    assert run.results(timeout=TIMEOUT_S) == [ITEMS] * 100
    assert ARRAY_BYTES <= shared_bytes() - shared <= ARRAY_BYTES + SLACK_BYTES
    assert private_bytes() - private < PRIVATE_SLACK_BYTES
    assert run.statistics().done == 100


def graph_of_totals(array, count):
    graph = hr.Graph()
    for number in range(count):
        graph.add(total, array, number)
    return graph


def test_tasks_see_one_place_and_copy_nothing(own_client):
    array = np.ones(ITEMS)
    for worker in (0, 1):
        on_worker = hr.task(address_and_total, worker=worker)
        before = value_of(own_client, private_bytes, worker=worker)
        graph = hr.Graph()
        nodes = [graph.add(on_worker, array) for _ in range(5)]
        inside = graph.add(hr.task(look, worker=worker), {"array": array, "list": [array]})
        *seen, where = results_of(own_client, graph, [*nodes, inside])
        assert len(set(seen)) == 1
        assert seen[0][1] == ITEMS
        assert where == [(False, True)] * 2
        assert value_of(own_client, private_bytes, worker=worker) - before < PRIVATE_SLACK_BYTES


def test_an_array_beside_different_arguments_takes_memory_once(own_client):
    array, graph, before = np.ones(ITEMS), hr.Graph(), shared_bytes()
    beside = [[{"small": np.full(3, number)}] for number in range(20)]
    nodes = [*graph.map(total, [array] * 20, beside)]
    for number in range(20):
        nodes.append(graph.add(total, array, np.arange(number)))
        graph.add(same, {"array": array, "number": number, "set": {number}})
    assert results_of(own_client, graph, nodes) == [ITEMS] * 40
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES


@pytest.mark.parametrize(
    "value",
    [
        b"x" * ARRAY_BYTES,
        "ä" * (ARRAY_BYTES // 2),
        list(range(MIB)),
        [bytes([number]) * (200 << 10) for number in range(40)],
        np.ones(2 * ITEMS)[::2],
    ],
    ids=["bytes", "str", "integers", "texts", "strided"],
)
def test_what_has_no_buffers_takes_memory_once_too(own_client, value):
    graph, before = hr.Graph(), shared_bytes()
    nodes = [graph.add(head_and_tail, value, number) for number in range(20)]
    assert results_of(own_client, graph, nodes) == [head_and_tail(value)] * 20
    assert MIB < shared_bytes() - before <= 2 * ARRAY_BYTES


def test_a_view_of_a_result_is_cited_where_it_lies(own_client):
    made = own_client.call(hr.task(filled, worker=0), 2.0, ITEMS)
    view = made.result(timeout=TIMEOUT_S)
    where, _ = value_of(own_client, address_and_total, made, worker=1)
    before = shared_bytes()
    graph = hr.Graph()
    on_worker = hr.task(address_and_total, worker=1)
    whole, part, again = graph.add(on_worker, view), graph.add(on_worker, view[MIB // 2 :]), graph.add(same, view)
    results = results_of(own_client, graph, [whole, part, again])
    assert results[:2] == [(where, 2.0 * ITEMS), (where + 4 * MIB, 1.0 * ITEMS)]
    assert address(results[2]) == address(view)
    assert value_of(own_client, address_and_total, view, worker=1) == results[0]
    assert shared_bytes() == before


def test_a_graph_without_the_task_does_not_bring_its_argument(own_client):
    graph, before = hr.Graph(), shared_bytes()
    first = graph.add(total, np.ones(ITEMS))
    second = graph.add(total, np.ones(2 * ITEMS))
    graph.add(max, first, second)
    assert results_of(own_client, graph.subgraph(first)) == [ITEMS]
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES
    assert results_of(own_client, graph) == [2 * ITEMS]


def test_a_constant_of_map_takes_memory_once_and_no_task(own_client):
    graph, before = hr.Graph(), shared_bytes()
    table, names = np.ones(ITEMS), [f"name {number}" for number in range(20_000)]
    nodes = graph.map(lambda x, table, names: x + table.sum() + len(names), range(50), table=table, names=names)
    assert len(graph) == 51, "the names, which are not large, have a task of their own"
    assert results_of(own_client, graph, nodes) == [ITEMS + 20_000 + x for x in range(50)]
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES


# -- values ------------------------------------------------------------------------------------------------------------


def large_arguments():
    array = np.arange(300_000.0)
    return {
        "array": array,
        "list": [1, array, b"x" * (2 * MIB), [array]],
        "dict": {"a": array, "b": {"c": "y" * (2 * MIB)}},
        "object": Measurement("m", array, np.arange(3)),
        "bytearray": bytearray(b"z" * (2 * MIB)),
        "integers": set(range(300_000)),
        "surrogates": "\ud800" * MIB,
        "Fortran order": np.asfortranarray(array.reshape(300, 1_000)),
        "structured": np.zeros(200_000, dtype=[("a", "i4"), ("b", "f8")]),
        "objects": np.array([None, "text"] * 100_000, dtype=object),
        "key": {"k" * (2 * MIB): 1},
    }


def equal(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Measurement):
        return equal(vars(left), vars(right))
    same_value = np.array_equal if isinstance(left, np.ndarray) else type(left).__eq__
    return type(left) is type(right) and same_value(left, right)


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_large_arguments_arrive_right(mode):
    values = large_arguments()
    with hr.Client(workers=2, mode=mode) as client:
        made = client.call(filled, 1.0, 200_000)
        graph = hr.Graph()
        node = graph.add(filled, 2.0, 200_000)
        alone = [graph.add(same, value) for value in values.values()]
        named = [graph.add(dict, key=value, other=value) for value in values.values()]
        mapped = graph.map(same, values.values())
        together = graph.add(lambda *args, **kwargs: (args, kwargs), *values.values(), 7, **values)
        between = graph.add(same, {"large": values["array"], "set": {1}, "node": node, "future": made, "n": [node]})
        keep = [alone, named, mapped, together, between]
        results = results_of(client, graph, keep)
        count = len(values)
        for name, once, twice, third in zip(
            values, results[:count], results[count : 2 * count], results[2 * count : 3 * count], strict=True
        ):
            assert equal(once, values[name]), name
            assert equal(twice, {"key": values[name], "other": values[name]}), name
            assert equal(third, values[name]), name
        args, kwargs = results[-2]
        assert equal(list(args), [*values.values(), 7])
        assert equal(kwargs, values)
        assert results[-1]["set"] == {1}
        assert equal(results[-1]["large"], values["array"])
        assert (results[-1]["node"] == 2.0).all()
        assert (results[-1]["future"] == 1.0).all()
        assert results[-1]["n"][0] is results[-1]["node"], "what was one object is one object"
        for name, value in values.items():
            assert equal(client.call(same, value).result(timeout=TIMEOUT_S), value), name
            assert equal(client.call(dict, key=value).result(timeout=TIMEOUT_S), {"key": value}), name


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_every_verb_takes_large_arguments(mode):
    array = np.ones(200_000)
    with hr.Client(workers=2, mode=mode) as client:
        graph = hr.Graph()
        arrays = [array * number for number in range(6)]
        totals = graph.map(total, arrays)
        with_table = graph.map(lambda x, y, table, name: (x, y, table.sum(), name), range(3), totals[:3],
                               table=array, name=graph.add(str, 1))  # fmt: skip
        folded = graph.reduce(np.add, [graph.add(same, array) for array in arrays[:3]], initial=array)
        lone = graph.reduce(np.add, [], initial=array * 7)
        made = hr.Graph.from_dict({"a": array, "b": (total, "a"), "c": (total, array), "d": (max, ["b", "c"])})
        assert results_of(client, graph, totals) == [200_000.0 * number for number in range(6)]
        assert results_of(client, graph, with_table) == [(x, 2e5 * x, 2e5, "1") for x in range(3)]
        assert (client.submit(graph, keep=folded).result(timeout=TIMEOUT_S) == 4.0).all()
        assert (client.submit(graph, keep=lone).result(timeout=TIMEOUT_S) == 7.0).all()
        assert client.submit(made, keep="d").result(timeout=TIMEOUT_S) == 200_000.0


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_a_task_may_only_read_a_large_array_of_a_graph(mode):
    def write(array):
        array[0] = 1.0

    graph = hr.Graph()
    graph.add(write, np.zeros(200_000))
    with hr.Client(workers=1, mode=mode) as client, pytest.raises(ValueError, match="read-only"):
        results_of(client, graph)


@pytest.mark.parametrize("size", [MIB - 200, MIB - 1, MIB, MIB + 1])
def test_arguments_of_about_a_mebibyte_arrive(client, size):
    for value in (bytes(size), "x" * size, [bytes(size)], ["x" * (size // 2)] * 2, np.arange(size, dtype=np.uint8)):
        assert equal(value_of(client, same, value), value)
        graph = hr.Graph()
        graph.map(same, [value, value], [1, 2])
        assert equal(results_of(client, graph), [value, value])


def test_a_frame_and_a_table_are_views(own_client):
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": np.arange(ITEMS), "b": np.arange(ITEMS) * 2})
    table = arrow.table({"number": np.arange(ITEMS)})
    graph, before = hr.Graph(), shared_bytes()
    for _ in range(10):
        graph.add(lambda frame: (lies_in_block(frame["a"].to_numpy()), int(frame["b"].iloc[-1])), frame)
        graph.add(lambda table: (table.num_rows, table["number"][-1].as_py()), table)
    assert results_of(own_client, graph) == [(True, 2 * (ITEMS - 1)), (ITEMS, ITEMS - 1)] * 10
    assert shared_bytes() - before <= 3 * ARRAY_BYTES + SLACK_BYTES


def test_dates_and_shapes_are_views(own_client):
    dates = np.arange(ITEMS).astype("datetime64[s]")
    graph, before = hr.Graph(), shared_bytes()
    for value in (dates, [dates, {1}], {"dates": dates.reshape(-1, 4).T}):
        graph.add(lambda value: (look(value), arrays_in(value)[0].astype(int).sum()), value)
    assert results_of(own_client, graph) == [([(False, True)], sum(range(ITEMS)))] * 3
    assert shared_bytes() - before <= ARRAY_BYTES + SLACK_BYTES


@pytest.mark.parametrize("mode", ["processes", "threads", "sync"])
def test_a_task_may_write_to_what_it_asks_to_write_to(mode):
    @hr.task(writable="array")
    def add_and_sum(array, number):
        array += number
        return float(array.sum())

    array, graph = np.zeros(200_000), hr.Graph()
    sums = [graph.add(add_and_sum, array, number) for number in range(6)]
    constant = graph.map(lambda number, array: add_and_sum(hr.copy(array), number), range(3), array=array)
    with hr.Client(workers=2, mode=mode) as client:
        assert results_of(client, graph, sums) == [200_000.0 * number for number in range(6)]
        assert results_of(client, graph, constant) == [200_000.0 * number for number in range(3)]
        assert value_of(client, add_and_sum, array.copy(), 2) == 400_000.0
    assert not array.any()


def test_graphs_look_as_they_did():
    graph, array = hr.Graph(), np.ones(200_000)
    node = graph.add(total, array)
    graph.add(max, node, bytes(2 * MIB))
    graph.map(total, [array] * 3, [graph.nodes[0]] * 3)
    assert graph._counts() == (5, 4, 2, 4)
    assert len(graph.subgraph(node)) == 1
    assert [graph._predecessors(index) for index in range(5)] == [[], [0], [0], [0], [0]]


def test_a_graph_by_reference_shares_the_object():
    array, graph = np.ones(200_000), hr.Graph(by_reference=True)
    graph.add(same, array)
    with hr.Client(workers=1, mode="sync") as client:
        assert results_of(client, graph)[0] is array


# -- what changes ------------------------------------------------------------------------------------------------------


def test_a_change_after_submit_is_not_seen(client, pipe):
    array, graph = np.ones(ITEMS), hr.Graph()
    gate = graph.add(wait_at, pipe, 5)
    late = graph.add(total, array, gate)
    run = client.submit(graph, keep=late)
    array[:] = 9.0
    pipe.write_text("go")
    assert run.result(timeout=TIMEOUT_S) == ITEMS


def test_a_change_before_submit_is_seen_in_buffers_alone(client):
    array, numbers, data, graph = np.ones(ITEMS), [1] * 600_000, bytearray(2 * MIB), hr.Graph()
    for value in (array, numbers, data):
        graph.add(head_and_tail, value)
    array[0], numbers[0], data[0] = 2.0, 2, 2
    numbers.append(7)
    assert results_of(client, graph) == [("2.0", "1.0", ITEMS), ("1", "1", 600_000), ("0", "0", 2 * MIB)]


def test_each_submit_and_each_call_takes_the_array_as_it_is(client):
    array, graph = np.ones(ITEMS), hr.Graph()
    graph.add(total, array)
    other = graph_of_totals(array, 2)
    for value in (1.0, 2.0, 3.0):
        array[:] = value
        assert results_of(client, graph) == [value * ITEMS]
        assert results_of(client, other) == [value * ITEMS] * 2
        assert value_of(client, total, array, array) == value * ITEMS


def test_a_graph_that_grows_while_it_is_submitted_is_right(client):
    graph, stop = hr.Graph(), threading.Event()

    def grow():
        number = 0
        while not stop.is_set() and number < 200:
            graph.add(lambda array, number: (int(array[-1]), number), np.full(200_000, float(number)), number)
            number += 1

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        for _ in range(10):
            keep = list(range(len(graph)))
            run = client.submit(graph, keep=[graph.nodes[index] for index in keep])
            assert run.results(timeout=TIMEOUT_S) == [(index, index) for index in keep]
    finally:
        stop.set()
        growing.join()


# -- what is let go of -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["submit", "call", "cancel", "fail"])
def test_memory_of_arguments_is_used_again(how, pipe):
    with hr.Client(workers=1, store_limit=64 * MIB) as client:
        runs = []
        for number in range(12):
            array = np.full(3 * MIB, float(number))
            if how == "call":
                assert value_of(client, total, array) == number * 3.0 * MIB
                continue
            graph = hr.Graph()
            if how == "cancel":
                graph.add(total, array, graph.add(wait_at, pipe, 5))
            else:
                graph.add(len if how == "submit" else array[:1].tofile, array)
            runs.append(run := client.submit(graph))
            if how == "cancel":
                run.cancel()
            assert run.wait(timeout=TIMEOUT_S), "it has ended, and stays"
        assert client.submit(hr.Graph()).statistics().store.spilled == 0


def test_memory_goes_back_to_the_system_while_run_and_graph_stay():
    script = run_script("""
        import numpy as np
        import headrace as hr
        from large_tasks import total
        from test_shared_memory import ARRAY_BYTES, ITEMS, eventually, shared_bytes
        with hr.Client(workers=2) as client:
            graph = hr.Graph()
            nodes = graph.map(total, [np.ones(ITEMS)] * 3)
            run = client.submit(graph)
            print(run.results(), shared_bytes() >= ARRAY_BYTES, eventually(lambda: shared_bytes() == 0))
            print(client.submit(graph).results())
    """)
    totals = "[1048576.0, 1048576.0, 1048576.0]"
    assert (script.stdout, script.stderr) == (f"{totals} True True\n{totals}\n", "")


def test_a_graph_lets_go_of_its_arguments(client):
    array = np.ones(ITEMS)
    seen = weakref.ref(array)
    graph = graph_of_totals(array, 3)
    graph.map(total, [array] * 2, table=array)
    del array
    gc.collect()
    assert seen() is not None
    del graph
    gc.collect()
    assert seen() is None


def test_a_full_store_is_the_error_of_submit_and_leaves_nothing():
    with hr.Client(workers=1, store_limit=64 * MIB) as client:
        graph = hr.Graph()
        graph.add(total, np.ones(3 * MIB))
        graph.add(hr.task(total, key="too much"), np.ones(9 * MIB))
        for _ in range(5):
            with pytest.raises(hr.StoreFull, match="75497472 bytes") as caught:
                client.submit(graph)
            assert "'too much'" in caught.value.__notes__[0]
            with pytest.raises(hr.StoreFull):
                client.call(total, np.ones(9 * MIB))
        assert client._core.unfinished() == ([], 0)
        assert value_of(client, total, np.full(6 * MIB, 2.0)) == 12.0 * MIB


def test_what_cannot_be_submitted_takes_no_memory(own_client):
    before = shared_bytes()
    graph = graph_of_totals(np.ones(ITEMS), 2)
    graph.add(hr.task(total, worker=7), np.ones(ITEMS))
    with pytest.raises(hr.NoSuitableWorker):
        own_client.submit(graph)
    with hr.Client(workers=1) as other:
        foreign = other.put(1)
        with pytest.raises(hr.UsageError, match="another client"):
            own_client.call(total, np.ones(ITEMS), foreign)
    assert shared_bytes() == before


def test_an_argument_that_cannot_be_pickled_is_named_where_it_is_given(client):
    bad = [np.ones(ITEMS), threading.Lock()]
    graph = hr.Graph()
    with pytest.raises(hr.ArgumentNotPicklable, match=r"add\(total\): argument 'array' -> \[1\]: .*lock"):
        graph.add(total, bad)
    with pytest.raises(hr.ArgumentNotPicklable, match=r"map\(total\): argument 'array' -> \[1\]: .*lock"):
        graph.map(total, [np.ones(ITEMS), bad])
    with pytest.raises(hr.ArgumentNotPicklable, match=r"reduce\(.*lock"):
        graph.reduce(total, [graph.add(total, np.ones(3))], initial=bad)
    with pytest.raises(hr.ArgumentNotPicklable, match=r"call\(total\): argument 'array' -> \[1\]: .*lock"):
        client.call(total, bad)
    assert len(graph) == 1


def test_a_killed_worker_costs_no_argument(client, tmp_path):
    graph = hr.Graph()
    array = np.ones(ITEMS)
    nodes = [graph.add(sum_once_per_marker, array, str(tmp_path / "marker")), *[graph.add(total, array)] * 3]
    assert results_of(client, graph, nodes[:2]) == [ITEMS] * 2


@pytest.mark.parametrize(
    "part", [lambda array: array[:, ::2], lambda array: array[:, 1][:, None]], ids=["gaps", "column"]
)
def test_an_array_with_gaps_that_was_changed_is_another_argument(part):
    array = np.zeros((200_000, 2))
    with hr.Client(workers=1) as client:
        for number in range(3):
            graph = hr.Graph()
            node = graph.add(np.max, part(array))
            assert client.submit(graph, keep=[node]).result(node) == number
            assert client.call(np.max, [part(array)]).result(timeout=30) == number
            array += 1
