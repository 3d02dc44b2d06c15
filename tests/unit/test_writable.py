"""The option `writable`: which arguments it means, and what it refuses."""

import functools
import pickle

import pytest
from graph_tasks import Model, inc

from headrace import Graph, Task, UsageError, task
from headrace.pickling import describe, dump_function, load_function
from headrace.writable import WritableArguments


def marked(values):
    """Make `["x"]` of `"x"`, so that one sees what was replaced."""
    return [[value] for value in values]


def plain(x, y=0, *, z=0):
    return x, y, z


def gathering(first, /, *rest, flag=None, **options):
    return first, rest, flag, options


class Scaler:
    def __call__(self, x, by):
        return x, by

    def method(self, x, by):
        return x, by

    @classmethod
    def of_class(cls, x, by):
        return x, by

    @staticmethod
    def static(x, by):
        return x, by


def relayed(fn):
    @functools.wraps(fn)
    def relay(*args, **kwargs):
        return args, kwargs

    return relay


@pytest.mark.parametrize(
    ("fn", "names", "args", "kwargs", "expected"),
    [
        (plain, "x", "ab", {}, (["a"], "b", 0)),
        (plain, "y", "ab", {}, ("a", ["b"], 0)),
        (plain, "x", "", {"x": "a"}, (["a"], 0, 0)),
        (plain, "z", "a", {"z": "c"}, ("a", 0, ["c"])),
        (plain, ("z", "x"), "ab", {"z": "c"}, (["a"], "b", ["c"])),
        (plain, "y", "a", {}, ("a", 0, 0)),
        (gathering, "first", "ab", {"first": "c"}, (["a"], ("b",), None, {"first": "c"})),
        (gathering, "rest", "abc", {}, ("a", (["b"], ["c"]), None, {})),
        (gathering, "rest", "a", {}, ("a", (), None, {})),
        (gathering, "options", "ab", {"flag": "f", "u": "v", "w": "x"}, ("a", ("b",), "f", {"u": ["v"], "w": ["x"]})),
        (gathering, ["flag", "rest"], "ab", {"flag": "f", "u": "v"}, ("a", (["b"],), ["f"], {"u": "v"})),
        (Scaler().method, "x", "ab", {}, (["a"], "b")),
        (Scaler.method, "x", (0, "a", "b"), {}, (["a"], "b")),
        (Scaler.of_class, "x", "ab", {}, (["a"], "b")),
        (Scaler.static, "by", "ab", {}, ("a", ["b"])),
        (Scaler(), "x", "ab", {}, (["a"], "b")),
        (functools.partial(plain, "p"), "y", "a", {}, ("p", ["a"], 0)),
        (functools.partial(plain, z="p"), "x", "a", {}, (["a"], 0, "p")),
        (relayed(plain), "x", "a", {"y": "b"}, ((["a"],), {"y": "b"})),
        (relayed(plain), "y", "a", {"y": "b"}, (("a",), {"y": ["b"]})),
    ],
)
def test_the_arguments_of_a_parameter_are_replaced_where_they_stand(fn, names, args, kwargs, expected):
    names = task(fn, writable=names)._options["writable"]
    assert WritableArguments(fn, names, marked)(*args, **kwargs) == expected


def test_what_is_one_object_stays_one():
    array = [1, 2]
    x, y, z = WritableArguments(plain, ("x", "y"))(array, (array,), z=array)
    assert x is y[0]
    assert x == [1, 2]
    assert x is not array
    assert z is array


def test_wrong_arguments_are_the_functions_own_error():
    with pytest.raises(TypeError, match=r"plain\(\) missing 1 required positional argument: 'x'"):
        WritableArguments(plain, ("x",), marked)(y=3)


def test_a_lone_name_is_one_name_and_a_list_is_taken_as_it_is():
    names = ["x"]
    made = task(plain, writable=names)
    names.append("nonsense")
    assert repr(made) == repr(task(plain, writable="x")) == "<Task plain(writable=('x',))>"
    assert repr(made.options(writable=())) == "<Task plain(writable=())>"
    assert describe(made.options(writable=()), "add")[0] is plain


def test_called_the_task_object_is_the_function():
    array = [1]
    assert task(plain, writable="x")(array)[0] is array


@pytest.mark.parametrize("give", [lambda fn, **options: task(fn, **options), lambda fn, **options: task(**options)(fn)])
@pytest.mark.parametrize(
    ("fn", "names", "text"),
    [
        (plain, "w", r"option writable: 'w' is no parameter of plain; it has x, y, z"),
        (plain, ("x", "w"), "'w' is no parameter of plain"),
        (lambda: 0, "x", "'x' is no parameter of lambda; it has none"),
        (functools.partial(plain, 1), "x", "'x' is no parameter of plain; it has y, z"),
        (Scaler().method, "self", "'self' is no parameter of method; it has x, by"),
        (min, "x", r"option writable: min does not tell its parameters \(.*\); let .* call it with headrace.copy\(x\)"),
    ],
)
def test_names_that_mean_nothing_are_refused_when_given(give, fn, names, text):
    with pytest.raises(UsageError, match=text):
        give(fn, writable=names)


def test_names_are_checked_for_the_method_that_is_bound():
    class Own(Model):
        own = task(lambda self, x: x, writable="self")

    with pytest.raises(UsageError, match="'self' is no parameter of lambda; it has x"):
        Graph().add(Own(1).own, 2)


def test_a_function_with_the_option_is_another_function():
    graph = Graph(by_reference=True)
    for fn in (inc, task(inc, writable="x"), task(inc)):
        graph.add(fn, 1)
    assert graph._counts()[2] == 2


@task(writable="x")
def decorated(x):
    return x


@pytest.mark.parametrize("fn", [inc, decorated, task(inc, key="a")])
def test_an_importable_function_travels_by_name(fn):
    plain = describe(task(fn, writable="x"), "add")[0]
    assert isinstance(plain, WritableArguments)
    blob = dump_function(plain)
    assert len(blob) < 150
    again = load_function(blob)
    assert again.names == ("x",)
    assert again.fn in (fn, inc)
    assert again(4) in (4, 5)


def test_other_functions_travel_by_value():
    step = 2
    blob = dump_function(WritableArguments(lambda x: x + step, ("x",)))
    assert load_function(blob)(1) == 3


def test_a_task_object_with_the_option_can_be_pickled():
    again = pickle.loads(pickle.dumps(task(inc, writable="x", key="k")))
    assert isinstance(again, Task)
    assert again._options == {"writable": ("x",), "key": "k"}
