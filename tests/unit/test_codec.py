"""Values on their way into a task: what arrives equals what was given, in type and in shared identity."""

import array
import collections
import datetime
import enum
import math
import pickle

import pytest
from graph_tasks import evaluate, give, inc, passed
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Graph, GraphError, UsageError
from headrace._core import ExternalRef, _dep, cite

integers = st.integers() | st.sampled_from([n + d for n in (2**7, 2**31, 2**63, 2**64) for d in (-1, 0, 1)])
atoms = st.none() | st.booleans() | integers | st.floats() | st.text() | st.binary()
odd = st.complex_numbers() | st.dates() | st.frozensets(st.integers()) | st.text(st.characters(codec=None), max_size=3)
keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))


def containers(inner):
    return (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(st.integers(), max_size=4)
    )


values = st.recursive(atoms | odd, containers, max_leaves=12)


def same(left, right):
    """Equal in value and in type, all the way down; and a nan is a nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float | complex):
        return repr(left) == repr(right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return left == right


@given(args=st.lists(values, max_size=4), kwargs=st.dictionaries(st.text(max_size=5), values, max_size=4))
@settings(max_examples=150, deadline=None)
def test_arguments_arrive_as_they_were_given(args, kwargs):
    arrived = passed(Graph(), *args, **kwargs)
    assert same(list(arrived[0]), args)
    assert same(arrived[1], kwargs)


@given(value=values, depth=st.integers(0, 20), width=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_depth_and_width_make_no_difference(value, depth, width):
    nested = [value] * width
    for _ in range(depth):
        nested = [nested, {"in": (nested,)}] if depth < 5 else (nested,)
    assert same(passed(Graph(), nested)[0][0], nested)


@given(rows=st.lists(st.tuples(values, values), max_size=4), constant=values)
@settings(max_examples=60, deadline=None)
def test_map_passes_what_add_does(rows, constant):
    graph = Graph()
    nodes = graph.map(give, [left for left, _ in rows], [right for _, right in rows], constant=constant)
    arrived = [evaluate(graph, node) for node in nodes]
    assert same(arrived, [((left, right), {"constant": constant}) for left, right in rows])


@pytest.mark.parametrize("count", [0, 1, 64, 65, 253, 254, 255, 256, 5_000])
def test_any_number_of_arguments(count):
    args = tuple(range(count))
    kwargs = {f"k{number}": number for number in range(count)}
    assert passed(Graph(), *args, **kwargs) == (args, kwargs)


# -- identity ----------------------------------------------------------------------------------------------------------


def test_arguments_that_share_an_object_still_do():
    shared = [1, 2]
    args, kwargs = passed(Graph(), shared, [shared], key={"in": shared}, other=[1, 2])
    assert args[0] is args[1][0] is kwargs["key"]["in"]
    assert kwargs["other"] is not args[0]


def test_an_object_and_a_part_of_it():
    class Owner:
        def __init__(self):
            self.part = [1]

    owner = Owner()
    (arrived, part), _ = passed(Graph(), owner, owner.part)
    assert arrived.part is part


def test_a_container_that_holds_itself():
    loop = [1]
    loop.append(loop)
    (arrived,), _ = passed(Graph(), loop)
    assert arrived[1] is arrived


def test_each_task_has_its_own_copy():
    graph = Graph()
    values = [1]
    first, second = (evaluate(graph, node)[0][0] for node in graph.map(give, [values, values]))
    assert first == second == values
    assert first is not second


# -- nodes in pickles --------------------------------------------------------------------------------------------------


def test_nodes_are_found_inside_objects():
    graph = Graph()
    one, two = graph.add(inc, 0), graph.add(inc, 1)
    Point = collections.namedtuple("Point", "x y")
    seen = graph.add(give, {one, 7}, collections.OrderedDict(a=[two, one]), Point(one, two), two)
    assert evaluate(graph, seen)[0] == ({1, 7}, collections.OrderedDict(a=[2, 1]), (1, 2), 2)
    assert len(seen.predecessors) == 2


def test_sequences_of_nodes_are_found_inside_objects():
    graph = Graph()
    nodes = graph.map(inc, range(3))
    assert evaluate(graph, graph.add(give, collections.deque([nodes, nodes[:1]])))[0][0][0] == [1, 2, 3]


def test_a_second_try_forgets_the_edges_of_the_first():
    graph = Graph()
    one, two = graph.add(inc, 0), graph.add(inc, 1)

    class Local:  # only cloudpickle takes it along, after the C pickler gave up
        def __init__(self, value):
            self.value = value

    seen = graph.add(give, [two, one, Local(one)], 5)
    (arrived, _), _ = evaluate(graph, seen)
    assert [*arrived[:2], arrived[2].value] == [2, 1, 1]
    assert [node.key for node in seen.predecessors] == ["inc-1", "inc-0"]


def test_an_error_forgets_the_edges():
    graph = Graph()
    one, two = graph.add(inc, 0), graph.add(inc, 1)

    class Stubborn:
        def __reduce__(self):
            raise TypeError("not me")

    with pytest.raises(TypeError, match="not me"):
        graph.add(give, [one, Stubborn()])
    assert graph.add(give, two).predecessors == [two]


def test_an_interrupt_while_pickling_is_not_an_error_of_the_argument():
    class Interrupted:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Graph().add(give, Interrupted())


def test_a_pickle_that_asks_for_a_result_is_of_no_use_elsewhere():
    with pytest.raises(LookupError, match="its input 3 is not here"):
        _dep(3)


# -- futures and refs --------------------------------------------------------------------------------------------------


class Reference(ExternalRef):
    """A stand-in for a ref that needs no client."""

    def __new__(cls, core, run, index):
        return super().__new__(cls, core, run, index)


@pytest.fixture
def core():
    from headrace._core import ClientCore, Offer

    core = ClientCore.local(1, Offer())
    yield core
    core.close()


def test_references_are_edges_wherever_they_are(core):
    graph = Graph()
    one, two = Reference(core, 1, 5), Reference(core, 2, 6)
    again = Reference(core, 1, 5)
    node = graph.add(inc, 1)
    first = graph.add(give, one)
    seen = graph.add(give, two, [node, {"in": one}], {again})
    assert graph._inputs(first.index) == [one]
    assert graph._inputs(seen.index)[:2] == [two, node.index]
    assert [(ref.run, ref.index) for ref in (graph._inputs(seen.index)[2],)] == [(1, 5)]
    assert seen.predecessors == [node]
    nodes = graph.map(give, [one, two], [node, one])
    assert [len(graph._inputs(node.index)) for node in nodes] == [2, 2]


def test_references_in_graphs_of_live_objects(core):
    graph = Graph(by_reference=True)
    one = Reference(core, 1, 5)
    node = graph.add(give, [one], {"in": (one,)})
    assert graph._inputs(node.index) == [one]
    fn, (args, kwargs) = graph._bind(node.index, ["result"], lambda *args, **kwargs: (args, kwargs))
    assert (fn, args, kwargs) == (give, (["result"], {"in": ("result",)}), {})


def test_a_reference_cannot_be_pickled_by_itself(core):
    with pytest.raises(GraphError, match="a Reference stands for a result and cannot be pickled by itself"):
        pickle.dumps(Reference(core, 1, 5))
    with pytest.raises(GraphError):
        cite(Reference(core, 1, 5))


# -- kinds -------------------------------------------------------------------------------------------------------------


class Color(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        datetime.timedelta(seconds=3),
        array.array("d", [1.5, math.inf]),
        bytearray(b"abc"),
        range(5),
        slice(1, 2),
        ...,
        NotImplemented,
        int,
        len,
        collections.Counter("aab"),
        "\ud800",
        -0.0,
        True,
    ],
    ids=repr,
)
def test_values_of_other_types_keep_them(value):
    (arrived, inner), _ = passed(Graph(), value, [value])
    assert type(arrived) is type(value)
    assert arrived == value
    assert repr(inner) == repr([value])


class Meddling(Reference):
    """A ref whose number changes the container that it is in."""

    act = staticmethod(lambda: None)

    @property
    def index(self):
        self.act()
        return 5


@pytest.mark.parametrize("by_reference", [False, True])
@pytest.mark.parametrize(
    ("container", "act"),
    [
        ({"ref": None, "one": 1}, lambda table: table.update(more=2)),
        ({"ref": None, "one": 1}, lambda table: table.clear()),
        ([None, 1], lambda items: items.append(2)),
        ([None, 1, 2], lambda items: items.pop()),
    ],
)
def test_a_container_that_changes_while_it_is_walked_panics_nobody(core, by_reference, container, act):
    ref = Meddling(core, 3, 5)
    container = container.copy()
    container["ref" if isinstance(container, dict) else 0] = ref
    ref.act = lambda: act(container) if len(container) in (2, 3) else None
    graph = Graph(by_reference=by_reference)
    try:
        node = graph.add(give, container)
    except (UsageError, RuntimeError):
        assert len(graph) == 0
    else:
        ((seen,), _) = evaluate(graph, node)
        assert type(seen) is type(container)


class Disguised:
    """Says to be of another class, and does something whenever it is asked."""

    def __init__(self, act):
        self.act = act

    @property
    def __class__(self):
        self.act()
        return int

    def __reduce__(self):
        return int, ()


def test_a_class_that_is_a_property_is_not_asked():
    asked = []
    graph = Graph(by_reference=True)
    graph.add(give, {"x": Disguised(lambda: asked.append(1))})
    assert not asked


@pytest.mark.parametrize("count", [2, 64, 65, 300])
def test_a_list_of_nodes_that_is_given_twice_arrives_as_one(count):
    graph = Graph()
    nodes = list(graph.map(inc, range(count)))
    numbers = [number + 1 for number in range(count)]
    ((left, right), keywords) = evaluate(graph, graph.add(give, nodes, nodes, named={"inner": [nodes]}))
    assert left == numbers
    assert left is right is keywords["named"]["inner"][0]
    ((left, right), _) = evaluate(graph, graph.add(give, nodes, list(nodes)))
    assert left == right == numbers
    assert left is not right
