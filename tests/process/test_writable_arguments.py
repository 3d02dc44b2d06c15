"""The option `writable`: a task writes to its argument, and nobody else sees it (S1 holds all the same)."""

import functools
import gc
import os
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from large_tasks import (  # noqa: E402
    Measurement,
    address,
    arrays_in,
    filled,
    filled_in_place,
    fork_reader,
    lies_in_block,
    map_at,
    middle,
    plus_one,
    put_aside,
    reap_children,
    same,
    take_totals,
    total,
)

import headrace as hr  # noqa: E402

TIMEOUT_S = 30
MIB = 1 << 20
ITEMS = MIB
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=2) as client:
        yield client


@pytest.fixture(params=["processes", "threads", "sync"])
def any_client(request):
    with hr.Client(workers=2, mode=request.param) as client:
        yield client


def value_of(client, fn, *args, **kwargs):
    return client.call(fn, *args, **kwargs).result(timeout=TIMEOUT_S)


def writing(fn, worker=None, names="x"):
    options = {} if worker is None else {"worker": worker}
    return hr.task(fn, writable=names, **options)


def scribble(x):
    x[0] = x[-1] = -1.0
    return x


def churn(client, runs=10):
    """Run graphs that use memory again wherever they may."""
    gc.collect()
    for number in range(runs):
        graph = hr.Graph()
        made = [graph.add(hr.task(filled_in_place, worker=worker), -1.0 - number, ITEMS) for worker in (0, 1)]
        nodes = [graph.add(hr.task(plus_one, worker=1 - worker), node) for worker, node in enumerate(made)]
        run = client.submit(graph, keep=nodes)
        assert all(array[0] == array[-1] == -number for array in run.results(timeout=TIMEOUT_S))
        run.release()
        client.submit(hr.Graph()).statistics()


# -- private to the task -----------------------------------------------------------------------------------------------


def test_writes_are_seen_by_nobody_else(client, tmp_path):
    def scribble_and_wait(x, said, gate):
        scribble(x)
        Path(said).write_text("written")
        Path(gate).read_text()
        return float(x[0]), float(x[1]), float(x[-1]), lies_in_block(x), x.flags.writeable

    said, gate = tmp_path / "said", tmp_path / "gate"
    os.mkfifo(said)
    os.mkfifo(gate)
    made = client.call(hr.task(filled, worker=1), 1.0, ITEMS)
    view = made.result(timeout=TIMEOUT_S)
    running = client.call(writing(scribble_and_wait, worker=0), made, str(said), str(gate))
    assert said.read_text() == "written"
    assert value_of(client, hr.task(total, worker=1), made) == ITEMS, "at the same time, where it was made"
    assert (view == 1.0).all()
    gate.write_text("go")
    assert running.result(timeout=TIMEOUT_S) == (-1.0, 1.0, -1.0, True, True)
    for worker in (0, 1):
        assert value_of(client, hr.task(total, worker=worker), made) == ITEMS, "later"
    assert (view == 1.0).all()
    for worker in (0, 1):
        again = value_of(client, writing(lambda x: float(x.sum()), worker=worker), made)
        assert again == ITEMS, "another task that may write begins with the old bytes"


def test_only_pages_that_are_written_to_are_copied(client):
    def touch(x):
        before, resident = map_at(address(x)), own_bytes()
        x[len(x) // 2] = 2.0
        read = float(x.sum())
        return before, map_at(address(x)), own_bytes() - resident, read

    def own_bytes():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))

    made = client.call(filled, 1.0, 8 * ITEMS)
    for worker in (0, 1):
        before, after, grown, read = value_of(client, writing(touch, worker=worker), made)
        assert read == 8 * ITEMS + 1.0
        assert (after["path"], after["permissions"]) == ("/memfd:headrace", "rw-p")
        assert after["Size"] >= 64 * MIB
        assert (before["Anonymous"], after["Anonymous"]) == (0, PAGE)
        assert grown < 2 * MIB


def test_what_was_written_is_the_result(client):
    made = client.call(filled, 1.0, ITEMS)
    changed = value_of(client, writing(scribble), made)
    assert changed.tolist() == [-1.0, *[1.0] * (ITEMS - 2), -1.0]
    assert lies_in_block(changed)
    assert not changed.flags.writeable
    assert value_of(client, total, made) == ITEMS
    part = value_of(client, writing(lambda x: middle(scribble(x)).__iadd__(1.0)), made)
    assert part.shape == (ITEMS * 3 // 4,)
    assert (part == 2.0).all()
    untouched = value_of(client, writing(same, names="value"), made)
    assert np.array_equal(untouched, made.result())


def test_a_chain_of_writers(client):
    graph = hr.Graph()
    first = graph.add(filled, 0.0, ITEMS)
    nodes = [first]
    for hop in range(6):
        nodes.append(graph.add(writing(lambda x: x.__iadd__(1.0), worker=hop % 2), nodes[-1]))
    results = client.submit(graph, keep=nodes).results(timeout=TIMEOUT_S)
    assert [(array[0], array[-1]) for array in results] == [(hop, hop) for hop in range(7)]


def test_an_array_made_in_place_can_be_written_to_by_others(client):
    def fill_and_keep(value, items):
        array = filled_in_place(value, items)
        put_aside(array)
        return array

    made = client.call(hr.task(fill_and_keep, worker=0), 3.0, ITEMS)
    assert value_of(client, writing(scribble, worker=0), made)[0] == -1.0
    assert value_of(client, hr.task(take_totals, worker=0)) == [3.0 * ITEMS]


# -- S1 ----------------------------------------------------------------------------------------------------------------


def test_a_block_is_not_used_again_while_a_task_has_it_writable(client):
    for number in range(3):
        made = client.call(filled, float(number), ITEMS)
        assert value_of(client, writing(put_aside, worker=0, names="array"), made) == number + 1
        del made
    churn(client)
    assert value_of(client, hr.task(take_totals, worker=0)) == [0.0, ITEMS, 2.0 * ITEMS]


def test_a_child_of_a_task_keeps_what_it_saw(client, tmp_path):
    def write_and_keep(x):
        x[0] = 5.0
        put_aside(x)

    def fork(gate, answer):  # with nothing of the block here but what may be written to
        from large_tasks import shelf

        return fork_reader(shelf.pop(), gate, answer)

    gate, answer = tmp_path / "gate", tmp_path / "answer"
    os.mkfifo(gate)
    os.mkfifo(answer)
    made = client.call(filled, 6.0, ITEMS)
    assert value_of(client, writing(write_and_keep, worker=0), made) is None
    del made
    churn(client, runs=1)
    assert value_of(client, hr.task(fork, worker=0), str(gate), str(answer)) > 0
    churn(client)
    gate.write_bytes(b"go")
    assert answer.read_text() == "5.0 6.0"
    assert value_of(client, hr.task(reap_children, worker=0)) is None


def test_memory_comes_back_once_nobody_has_it_writable():
    with hr.Client(workers=1, store_limit=64 * MIB) as client:
        for number in range(20):
            made = client.call(filled, float(number), 2 * MIB)
            assert value_of(client, writing(lambda x: float(x.__iadd__(1.0)[0])), made) == number + 1.0
            del made


# -- values ------------------------------------------------------------------------------------------------------------


def number_of_writable(value):
    arrays = arrays_in(value)
    return sum(array.flags.writeable and lies_in_block(array) for array in arrays), len(arrays)


def scribble_all(x):
    """Write to every array of a value."""
    counted = number_of_writable(x)
    for array in arrays_in(x):
        array.reshape(-1)[:1] = array.reshape(-1)[-1:]
    return counted


VALUES = {
    "list": lambda: [np.arange(50_000.0), np.arange(50_000), "text", None],
    "nested": lambda: {"a": [np.arange(9_000.0), (np.arange(9_000),)], "b": {"c": np.arange(5)}},
    "object": lambda: Measurement("m", np.arange(50_000.0), np.arange(50_000.0)),
    "Fortran order": lambda: np.asfortranarray(np.arange(100_000.0).reshape(100, 1_000)),
    "structured": lambda: np.array([(n, n / 2) for n in range(20_000)], dtype=[("a", "i4"), ("b", "f8")]),
    "dates": lambda: np.arange(100_000).astype("M8[s]"),
}


@pytest.mark.parametrize("name", VALUES)
def test_arrays_anywhere_in_a_value_can_be_written_to(client, name):
    made = client.call(VALUES[name])
    count = len(arrays_in(VALUES[name]()))
    assert value_of(client, writing(scribble_all), made) == (count, count)
    expected = arrays_in(VALUES[name]())
    assert all(map(np.array_equal, arrays_in(made.result(timeout=TIMEOUT_S)), expected))


def test_instances_of_classes_of_the_client_can_be_written_to(client):
    class Pair:  # travels by value
        def __init__(self):
            self.left, self.right = np.arange(50_000.0), np.arange(5)

    def write(x):
        x.left[0], x.right[0] = -1.0, -1
        return type(x) is Pair, x.left[0], lies_in_block(x.left)

    made = client.call(Pair)
    assert value_of(client, writing(write), made) == (True, -1.0, True)
    assert made.result(timeout=TIMEOUT_S).left[0] == 0.0


def test_a_frame_can_be_written_to(client):
    pandas = pytest.importorskip("pandas")

    def make():
        dates = pandas.date_range("2026-01-01", periods=50_000, freq="s")
        return pandas.DataFrame({"a": np.arange(50_000.0), "b": np.arange(50_000), "when": dates})

    def write(x):
        x.loc[0, "a"] = -1.0
        x.loc[1, "when"] = x.loc[7, "when"]
        x["b"].to_numpy()  # whatever pandas has made of the columns, the frame holds what was written
        return x.loc[0, "a"], x.loc[1, "when"], float(x["a"].sum())

    made = client.call(make)
    with pytest.raises(ValueError, match="read-only"):
        value_of(client, write, made)
    expected = make()
    assert value_of(client, writing(write), made) == (-1.0, expected.loc[7, "when"], expected["a"].sum() - 1.0)
    pandas.testing.assert_frame_equal(made.result(), expected)


def test_a_memoryview_can_be_written_to(client):
    def write(x):
        x[0] = -1.0
        return x.readonly, x.tolist()[:2], map_at(address(np.asarray(x)))["permissions"]

    made = client.call(lambda: memoryview(np.ones(50_000)))
    assert value_of(client, writing(write), made) == (False, [-1.0, 1.0], "rw-p")
    assert made.result(timeout=TIMEOUT_S)[0] == 1.0


def test_a_short_read_only_array_can_be_written_to(client):
    made = client.call(lambda array: array[:10], client.call(filled, 1.0, ITEMS))
    assert value_of(client, lambda x: x.flags.writeable, made) is False
    assert value_of(client, writing(scribble), made).tolist() == [-1.0, *[1.0] * 8, -1.0]
    assert made.result(timeout=TIMEOUT_S).tolist() == [1.0] * 10


def test_what_can_be_written_to_anyway_is_passed_as_it_is(client):
    def see(x, y):
        return x is y, type(x)

    shared = [[1, 2], {3}]
    assert value_of(client, writing(see, names=("x",)), shared, shared) == (True, list)
    for value in (5, None, "text" * 50_000, b"x" * 100_000, [b"x" * 100_000], np.arange(3)):
        assert str(value_of(client, writing(same, names="value"), client.put(value))) == str(value)


def test_values_that_share_bytes_do_not_share_writes(client):
    """Two results may cite the same bytes of a block; to the task that takes both they are two values."""

    def write(x, y, z):
        x[:] = -1.0
        return float(x.sum()), float(y.sum()), float(z.sum()), number_of_writable([x, y, z])

    made = client.call(filled, 1.0, ITEMS)
    again = client.call(same, made)
    part = client.call(middle, made)
    expected = (-float(ITEMS), float(ITEMS), ITEMS * 0.75, (3, 3))
    assert value_of(client, writing(write, names=("x", "y", "z")), made, again, part) == expected
    sums = value_of(client, writing(lambda x, y: (write(x, y, y)[:2], y.flags.writeable)), made, made)
    assert sums == ((-float(ITEMS), float(ITEMS)), False), "one object, and only one of its two names is writable"
    overlapping = client.call(lambda x: [x[:100_000], x[50_000:], x[10:20]], made)
    assert value_of(client, writing(lambda x: write(*x)), overlapping)[:3] == (-1e5, ITEMS - 5e4, 10.0)


def test_one_object_under_two_writable_names_is_one_object(client):
    made = client.call(filled, 1.0, ITEMS)
    see = writing(lambda x, y: (x is y, scribble(x)[0]), names=("x", "y"))
    assert value_of(client, see, made, made) == (True, -1.0)


def test_more_arrays_than_a_process_may_have_maps(client):
    count = 70_000
    made = client.call(lambda: list(np.arange(8 * count, dtype="u1").reshape(count, 8)))

    def write(x):
        for array in x:
            array[0] = 1
        return len(x), sum(int(array[0]) for array in x)

    assert value_of(client, writing(write), made) == (count, count)
    assert value_of(client, lambda x: int(x[0][0]), made) == 0


# -- every verb and mode -----------------------------------------------------------------------------------------------


def test_in_every_mode_writes_are_seen_by_nobody_else(any_client):
    client = any_client
    graph = hr.Graph()
    made = graph.add(filled, 1.0, 100_000)
    before = graph.add(total, made)
    changed = graph.add(
        writing(lambda x: float(scribble(x).sum())),
        made,
    )
    by_name = graph.add(hr.task(lambda x: float(scribble(x).sum()), writable=("x",)), x=made)
    after = graph.add(total, made, [changed, by_name])
    each = graph.map(writing(lambda x, add: float(scribble(x)[1] + add)), [made] * 3, range(3))
    run = client.submit(graph, keep=[made, before, changed, by_name, after, each])
    array, *numbers = run.results(timeout=TIMEOUT_S)
    assert numbers == [100_000.0, 99_996.0, 99_996.0, 100_000.0, 1.0, 2.0, 3.0]
    assert (array == 1.0).all()
    ref = run.ref(made)
    assert value_of(client, writing(lambda x: float(scribble(x).sum())), ref) == 99_996.0
    assert value_of(client, writing(lambda x: float(scribble(x["a"][0]).sum())), {"a": [ref]}) == 99_996.0
    assert value_of(client, total, ref) == 100_000.0
    assert (array == 1.0).all()


@pytest.mark.parametrize("mode", ["threads", "sync"])
def test_a_graph_of_live_objects_keeps_them(mode):
    array = np.ones(100_000)
    graph = hr.Graph(by_reference=True)
    graph.add(writing(lambda x: float(scribble(x).sum())), array)
    with hr.Client(mode=mode) as client:
        assert client.submit(graph).result(timeout=TIMEOUT_S) == 99_996.0
        assert value_of(client, writing(scribble), array)[0] == -1.0
    assert (array == 1.0).all()


@pytest.mark.parametrize("arity", [2, 3])
def test_a_reduction_may_write_to_what_it_folds(any_client, arity):
    def fold(left, right):
        left += right
        return left

    graph = hr.Graph()
    made = graph.map(filled, [float(number) for number in range(7)], [20_000] * 7)
    root = graph.reduce(hr.task(fold, writable="left", key="sum"), made, arity=arity, initial=np.zeros(20_000))
    run = any_client.submit(graph, keep=[made, root])
    *values, folded = run.results(timeout=TIMEOUT_S)
    assert (folded == 21.0).all()
    assert [float(value[0]) for value in values] == list(range(7))
    assert root.key == "sum"
    assert (value_of(any_client, same, run.ref(made[3])) == 3.0).all()


def test_a_reduction_of_nothing_is_its_initial_value():
    graph = hr.Graph()
    root = graph.reduce(hr.task(lambda x, y: x, writable="x"), [], initial=5)
    assert hr.run(graph, root, mode="sync") == 5


def test_other_options_hold_too(client):
    graph = hr.Graph()
    made = graph.add(filled, 1.0, 100_000)
    split = hr.task(lambda x, y: (scribble(x)[0], y.flags.writeable, hr.current().worker), priority=3, nout=3)
    node = graph.add(split.options(key="mine", worker=1, writable="x"), made, made)
    first, second, third = node
    assert node.key == "mine"
    assert hr.run(graph, first, second, third, workers=2) == (-1.0, False, 1)


class Scaler:
    def __init__(self, by):
        self.by = by

    @hr.task(writable="x")
    def scale(self, x):
        x *= self.by
        return float(x.sum())

    def __call__(self, x):
        x *= self.by
        return float(x.sum())


def test_methods_partials_and_objects_with_call(any_client):
    def scale(by, x):
        x *= by
        return float(x.sum())

    made = any_client.call(filled, 1.0, 100_000)
    fns = [
        Scaler(2.0).scale,
        hr.task(Scaler(2.0), writable="x"),
        hr.task(functools.partial(scale, 2.0), writable="x"),
    ]
    assert [value_of(any_client, fn, made) for fn in fns] == [200_000.0] * 3
    assert value_of(any_client, total, made) == 100_000.0


def test_a_function_too_long_to_be_kept(client):
    ballast = os.urandom(100_000)

    def write(x):
        return float(scribble(x).sum()), len(ballast)

    made = client.call(filled, 1.0, 100_000)
    assert value_of(client, writing(write), made) == (99_996.0, 100_000)


def test_a_function_with_the_option_is_captured_at_its_first_call(client):
    step = 1
    add = hr.task(lambda x: float(x.__iadd__(step)[0]), writable="x")
    made = client.call(filled, 1.0, 100_000)
    assert value_of(client, add, made) == 2.0
    step = 5
    assert value_of(client, add, made) == 2.0


# -- errors ------------------------------------------------------------------------------------------------------------


def test_the_error_names_both_ways_out(client):
    made = client.call(filled, 1.0, ITEMS)
    with pytest.raises(ValueError, match="read-only") as caught:
        value_of(client, scribble, made)
    notes = "".join(caught.value.__notes__)
    assert '.options(writable=("x",))' in notes
    assert "headrace.copy(x)" in notes


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.fill(1.0),
        lambda x: x.sort(),
        lambda x: x.__iadd__(1.0),
        lambda x: np.put(x, [0], [1.0]),
        lambda x: x.setflags(write=True),
        lambda x: x.data.__setitem__(0, 1.0),
        lambda x: x.flat.__setitem__(0, 1.0),
    ],
)
def test_so_it_does_however_somebody_writes(client, write):
    with pytest.raises((ValueError, TypeError)) as caught:
        value_of(client, write, client.call(filled, 1.0, ITEMS))
    assert sum("headrace.copy(x)" in note for note in caught.value.__notes__) == 1


def test_other_errors_that_speak_of_read_only_things_are_left_alone(client):
    def save():
        raise ValueError("the file is read-only")

    with pytest.raises(ValueError, match="the file is read-only") as caught:
        value_of(client, save)
    assert not any("headrace.copy" in note for note in caught.value.__notes__)


class Unreadable(ValueError):
    def __str__(self):
        raise RuntimeError("no text")


class Unnoted(ValueError):
    __notes__ = "no list"

    def __str__(self):
        return "array is read-only"


@pytest.mark.parametrize("kind", [Unreadable, Unnoted])
def test_an_error_that_misbehaves_costs_no_worker(client, kind):
    def fail():
        raise kind

    deaths = client.statistics().worker_deaths
    future = client.call(fail)
    assert type(future.exception(timeout=TIMEOUT_S)).__name__ == kind.__name__
    assert client.statistics().worker_deaths == deaths


def test_a_missing_argument_is_the_functions_own_error(client):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        value_of(client, writing(lambda x, y=0: x), y=1)


def test_a_lack_of_address_space_fails_the_task_alone(client):
    def with_little_room(x):
        return float(x[0])

    def limit(extra):
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limits[1] if extra is None else now + extra, limits[1]))

    with hr.Client(workers=1) as own:
        made = own.call(filled, 1.0, 8 * ITEMS)
        assert value_of(own, writing(with_little_room), made) == 1.0
        value_of(own, limit, 16 * MIB)
        with pytest.raises(MemoryError, match="cannot be mapped to be written to"):
            value_of(own, writing(with_little_room), made)
        value_of(own, limit, None)
        assert value_of(own, writing(with_little_room), made) == 1.0
