"""An exception arrives as it was raised, part by part, and what cannot travel arrives as text."""

import asyncio
import copyreg
import json
import pickle
import sys
import threading
import traceback
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import records
from headrace.errors import ResultNotPicklable, ResultTooLarge, TaskError
from headrace.records import PARTS_MAX, PICKLE_BYTES_MAX, TEXT_BYTES_MAX, RemoteTraceback, dump_failure, load_failure

NOTE = "headrace: raised by task 'fit-3' (attempt 2, worker 1)"


def dump(error, **options):
    """Raise an exception, as a task does, and record it."""
    try:
        raise error
    except BaseException as raised:
        return dump_failure(raised, "fit-3", 2, 1, **options)


def journey(error):
    return load_failure(dump(error))


def as_text(error):
    """Send an exception that cannot travel, and give what arrives and the note that says why."""
    arrived = journey(error)
    assert type(arrived) is TaskError
    assert (arrived.key, arrived.attempt, arrived.worker) == ("fit-3", 2, 1)
    assert arrived.type_name in {type(error).__qualname__, f"{type(error).__module__}.{type(error).__qualname__}"}
    assert "Traceback (most recent call last)" in arrived.traceback
    assert arrived.__notes__[-1] == NOTE
    return arrived, arrived.__notes__[-2]


def caused(error, cause):
    error.__cause__ = cause
    return error


def while_handling(error, context):
    error.__context__ = context
    return error


# -- exceptions that travel --------------------------------------------------------------------------------------------


class Sour(Exception):
    def __init__(self, degree, *, where="here"):
        super().__init__(degree)
        self.degree = degree
        self.where = where


class Reduced(Exception):
    """Takes other arguments than it keeps, and says how to make it again."""

    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")
        self.left, self.right = left, right

    def __reduce__(self):
        return type(self), (self.left, self.right)


class Slotted(Exception):
    __slots__ = ("depth",)


class Unruly(BaseException):
    pass


SAMPLES = [
    ValueError("seven"),
    KeyError("id"),
    FileNotFoundError(2, "no such thing", "path"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    StopIteration(5),
    ImportError("none", name="module", path="path"),
    SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
    json.JSONDecodeError("bad", "text", 2),
    ZeroDivisionError(),
    AssertionError({"a": [1, (2.5, None)]}),
    ValueError(float("nan"), b"x", 1 + 2j, object),
    RecursionError("deep"),
    MemoryError(),
    Sour(7, where="there"),
    Reduced(1, 2),
    Slotted("x"),
    Unruly("x"),
    TaskError("text", key="other", type_name="Odd"),
    ResultTooLarge("too large", key="k"),
    ResultNotPicklable("lock", key="k"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_exception_arrives_as_it_was(error):
    arrived = journey(error)
    assert type(arrived) is type(error)
    assert repr(arrived) == repr(error)
    assert str(arrived) == str(error)
    attributes = {name: value for name, value in vars(arrived).items() if name != "__notes__"}
    assert attributes == vars(error)
    assert arrived.__notes__ == [NOTE]


def test_the_traceback_in_the_worker_is_its_cause():
    arrived = journey(Sour(7))
    assert type(arrived.__cause__) is RemoteTraceback
    assert arrived.__cause__.text.startswith("Traceback (most recent call last)")
    assert "raise error" in str(arrived.__cause__)
    assert not arrived.__suppress_context__
    shown = "".join(traceback.format_exception(arrived))
    assert shown.index("raise error") < shown.index(NOTE)


def test_the_traceback_in_the_worker_is_a_note_where_there_is_a_cause():
    arrived = journey(caused(Sour(7), KeyError("id")))
    assert repr(arrived.__cause__) == "KeyError('id')"
    assert arrived.__notes__[0] == NOTE
    assert "direct cause" in arrived.__notes__[1]
    assert len(arrived.__notes__) == 2


def test_what_tblib_makes_of_exceptions_does_not_travel(monkeypatch):
    support = pytest.importorskip("tblib.pickling_support")
    monkeypatch.setattr(copyreg, "dispatch_table", dict(copyreg.dispatch_table))
    support.install()
    error = caused(Sour(5), ValueError("bad"))
    assert b"tblib" not in dump(error)
    arrived = journey(error)
    assert (type(arrived), arrived.degree, type(arrived.__cause__)) == (Sour, 5, ValueError)


def test_notes_arrive_in_their_order():
    error = Sour(7)
    error.add_note("first")
    error.add_note("second")
    assert journey(error).__notes__ == ["first", "second", NOTE]
    assert error.__notes__ == ["first", "second"]


def test_an_attribute_that_only_cloudpickle_takes():
    error = Sour(7)
    error.retry = lambda degree: degree + error_offset
    assert journey(error).retry(1) == 11


error_offset = 10


def test_a_class_of_a_function_arrives_as_itself():
    class Local(Sour):
        count = 1

        def __str__(self):
            return f"local {error_offset}"

    method = Local.__str__
    record = dump(Local(7))
    Local.count = 2
    arrived = load_failure(record)
    assert type(arrived) is Local
    assert Local.__str__ is method
    assert Local.count == 2


def test_a_class_that_holds_an_exception_of_its_own_kind():
    class Local(Exception):
        pass

    Local.last = Local("last")
    assert type(journey(Local("x"))) is Local


def test_a_failure_of_a_failure():
    first = journey(Sour(7))
    second = journey(caused(ValueError("again"), first))
    assert type(second.__cause__) is Sour
    assert type(second.__cause__.__cause__) is RemoteTraceback
    assert "raise error" in second.__cause__.__cause__.text
    assert journey(first).__notes__.count(NOTE) == 2


# -- chains ------------------------------------------------------------------------------------------------------------


def test_causes_and_contexts_arrive():
    error = while_handling(caused(Sour(1), caused(Sour(2), KeyError(3))), while_handling(OSError(4), Sour(5)))
    arrived = journey(error)
    assert repr(arrived.__cause__) == "Sour(2)"
    assert repr(arrived.__cause__.__cause__) == "KeyError(3)"
    assert repr(arrived.__context__) == "OSError(4)"
    assert repr(arrived.__context__.__context__) == "Sour(5)"
    assert arrived.__suppress_context__
    assert not arrived.__context__.__suppress_context__


@pytest.mark.parametrize("suppressed", [True, False])
def test_whether_the_context_is_shown_is_kept(suppressed):
    error = while_handling(Sour(1), KeyError("hidden"))
    error.__suppress_context__ = suppressed
    arrived = journey(error)
    assert arrived.__suppress_context__ is suppressed
    assert repr(arrived.__context__) == "KeyError('hidden')"
    assert ("hidden" in str(arrived.__cause__)) is not suppressed


def test_one_exception_in_several_places_stays_one():
    shared = KeyError("shared")
    error = while_handling(caused(ValueError(1, shared), shared), shared)
    error.last = shared
    arrived = journey(error)
    assert arrived.__cause__ is arrived.__context__ is arrived.last is arrived.args[1]


def test_chains_that_go_round_arrive_so():
    first, second = Sour(1), Sour(2)
    caused(first, second)
    caused(second, first)
    arrived = journey(first)
    assert (arrived.degree, arrived.__cause__.degree) == (1, 2)
    assert arrived.__cause__.__cause__ is arrived


def test_attributes_that_go_round_arrive():
    first, second = Sour(1), Sour(2)
    first.other, second.other = second, first
    caused(first, second)
    arrived = journey(first)
    assert arrived.other is arrived.__cause__
    assert arrived.other.other.degree == 1


def test_what_cannot_travel_leaves_the_rest_of_the_chain():
    middle = caused(Sour(2), KeyError("last"))
    middle.lock = threading.Lock()
    middle.add_note("hint")
    arrived = journey(caused(Sour(1), middle))
    assert arrived.degree == 1
    text = arrived.__cause__
    assert type(text) is TaskError
    assert str(text) == f"{__name__}.Sour: 2"
    assert text.__notes__[0] == "hint"
    assert ".lock: cannot pickle '_thread.lock' object" in text.__notes__[1]
    assert repr(text.__cause__) == "KeyError('last')"


def test_a_long_chain_is_cut_and_its_ends_stay():
    error = Sour(0)
    for degree in range(1, 5_000):
        error = caused(Sour(degree), error)
    arrived = journey(error)
    degrees = []
    while type(arrived) is Sour:
        degrees.append(arrived.degree)
        arrived = arrived.__cause__
    assert arrived is None
    assert degrees == list(range(4_999, 4_999 - PARTS_MAX, -1))


# -- groups ------------------------------------------------------------------------------------------------------------


class Several(ExceptionGroup):
    """A group with state."""

    def derive(self, members):
        return type(self)(self.message, members)


class Named(ExceptionGroup):
    """A group whose class takes other arguments."""

    def __new__(cls, name):
        return super().__new__(cls, name, [ValueError(name)])

    def __init__(self, name):
        pass


def leaves(error):
    if isinstance(error, BaseExceptionGroup):
        return [leaves(member) for member in error.exceptions]
    return repr(error)


def test_a_tree_of_groups_arrives():
    noted = caused(ValueError("m"), KeyError("cause"))
    noted.add_note("hint")
    inner = Several("inner", [Sour(1), noted])
    inner.state = 5
    inner.add_note("inside")
    error = ExceptionGroup("outer", [OSError(2, "no"), inner, ExceptionGroup("third", [noted])])
    arrived = journey(error)
    assert type(arrived) is ExceptionGroup
    assert leaves(arrived) == leaves(error)
    assert arrived.message == "outer"
    assert arrived.__notes__ == [NOTE]
    inner = arrived.exceptions[1]
    assert (type(inner), inner.message, inner.state, inner.__notes__) == (Several, "inner", 5, ["inside"])
    assert inner.exceptions[1].__notes__ == ["hint"]
    assert repr(inner.exceptions[1].__cause__) == "KeyError('cause')"
    assert arrived.exceptions[2].exceptions[0] is inner.exceptions[1]


def test_a_member_that_cannot_travel_leaves_the_others():
    bad = Sour(2)
    bad.lock = threading.Lock()
    arrived = journey(Several("group", [Sour(1), bad, Sour(3)]))
    assert type(arrived) is Several
    assert [type(member) for member in arrived.exceptions] == [Sour, TaskError, Sour]


def test_a_group_that_cannot_travel_is_a_plain_one_with_its_members():
    error = Named("bad")
    error.add_note("hint")
    arrived = journey(error)
    assert type(arrived) is ExceptionGroup
    assert (arrived.message, leaves(arrived)) == ("bad", ["ValueError('bad')"])
    assert arrived.__notes__[0] == "hint"
    assert f"group of class {__name__}.Named" in arrived.__notes__[1]


def test_a_group_whose_context_is_around_it():
    member = Sour(1)
    group = ExceptionGroup("group", [member])
    member.__context__ = group
    assert journey(group).exceptions[0].__context__.message == "group"
    arrived = journey(member)
    assert arrived.__context__.exceptions[0] is arrived


def test_orders_to_end_arrive_as_text_in_a_group():
    error = BaseExceptionGroup("group", [KeyboardInterrupt(), ValueError("x")])
    arrived = journey(error)
    assert type(arrived) is ExceptionGroup
    assert [type(member) for member in arrived.exceptions] == [TaskError, ValueError]
    unruly = journey(BaseExceptionGroup("group", [Unruly("x")]))
    assert type(unruly) is BaseExceptionGroup


def test_a_group_of_too_many_says_so():
    arrived = journey(ExceptionGroup("many", [ValueError(number) for number in range(PARTS_MAX + 500)]))
    assert type(arrived) is ExceptionGroup
    assert len(arrived.exceptions) == PARTS_MAX - 1
    assert "501 members are left out" in arrived.__notes__[0]


def test_a_deep_tree_of_groups_arrives():
    error = ValueError("leaf")
    for _ in range(400):
        error = ExceptionGroup("level", [error])
    arrived = journey(error)
    levels = 0
    while isinstance(arrived, ExceptionGroup):
        (arrived,) = arrived.exceptions
        levels += 1
    assert levels == 400


# -- exceptions that do not travel -------------------------------------------------------------------------------------


class Needs(Exception):
    """Takes two arguments and keeps one, as many do."""

    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")


class Doubles(Exception):
    """Can be called with what it keeps, and is another then."""

    def __init__(self, code, detail="?"):
        super().__init__(f"{code}: {detail}")


class Liar(Exception):
    def __reduce__(self):
        return self.answer


class Raises(Exception):
    """Raises `error` in the method of that name."""

    def __init__(self, method, error):
        super().__init__(method)
        self.method, self.error = method, error

    def _raise_in(self, method):
        if self.method == method:
            raise self.error

    def __reduce__(self):
        self._raise_in("__reduce__")
        return type(self), (self.method, self.error)

    def __setstate__(self, state):
        self._raise_in("__setstate__")

    def __str__(self):
        self._raise_in("__str__")
        return self.method

    def __repr__(self):
        self._raise_in("__repr__")
        return self.method


@dataclass(frozen=True)
class Frozen(Exception):
    code: int = 0

    def __reduce__(self):
        return type(self), (self.code,)


def liar(answer):
    error = Liar("truth")
    error.answer = answer
    return error


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        (Needs(1, 2), "1 and 2", "missing 1 required positional argument"),
        (Doubles(5), "5: ?", "other arguments"),
        (liar((ValueError, ("x",))), "truth", "its pickle gives ValueError"),
        (liar((Liar, ("lie",))), "truth", "other arguments"),
        (liar((Liar, ("truth", 2))), "truth", "other arguments"),
        (liar((int, ("5",))), "truth", "its pickle gives int"),
        (liar("no_such_name"), "truth", "no_such_name"),
        (liar((sys.exit, (3,))), "truth", "SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_does_not_come_back_as_it_was_arrives_as_text(error, text, reason):
    arrived, why = as_text(error)
    assert str(arrived) == f"{__name__}.{type(error).__qualname__}: {text}"
    assert reason in why or "tblib" in sys.modules  # which has words of its own


def test_an_attribute_that_cannot_be_pickled_is_named():
    error = Sour(7)
    error.state = {"locks": [threading.Lock()]}
    arrived, why = as_text(error)
    assert str(arrived) == f"{__name__}.Sour: 7"
    assert ".state['locks'][0]: cannot pickle '_thread.lock' object" in why


@pytest.mark.parametrize("method", ["__reduce__", "__str__", "__repr__"])
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_methods_that_raise_harm_nothing_else(method, error):
    bad = Raises(method, error)
    arrived = journey(caused(Sour(1), bad))
    assert arrived.degree == 1
    assert isinstance(arrived.__cause__, TaskError if method == "__reduce__" else Raises)
    assert isinstance(journey(bad), (TaskError, Raises))


def test_a_class_that_forbids_attributes():
    arrived = journey(Frozen(5))
    assert (type(arrived), arrived.code, arrived.__notes__) == (Frozen, 5, [NOTE])
    with pytest.raises(Frozen) as caught:
        raise Frozen(5) from Frozen(6)
    arrived = load_failure(dump_failure(caught.value, "fit-3", 2, 1))
    assert (arrived.code, arrived.__cause__.code) == (5, 6)


@pytest.mark.parametrize("notes", [5, None, "text", [b"x", 3], ("a", "b")], ids=repr)
def test_notes_that_are_none(notes):
    error = Sour(7)
    error.__notes__ = notes
    assert journey(error).__notes__[-1] == NOTE
    error.lock = threading.Lock()
    assert NOTE in as_text(error)[0].__notes__


def test_lone_surrogates():
    assert journey(ValueError("\ud800")).args == ("\ud800",)
    arrived, _ = as_text(Needs("\ud800", 2))
    assert str(arrived).endswith(r"Needs: \ud800 and 2")


class Text(str):
    def encode(self, *_):
        raise ValueError("no")


def test_texts_of_a_class_of_its_own():
    class Wordy(Exception):
        def __str__(self):
            return Text("words")

    error = Wordy(threading.Lock())
    arrived = journey(error)
    assert str(arrived).endswith("Wordy: words")


@pytest.mark.parametrize("error", [KeyboardInterrupt("c"), SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_orders_to_end_arrive_as_text(error):
    arrived, why = as_text(error)
    name = arrived.type_name
    assert name.endswith(type(error).__name__)
    assert str(arrived) == (f"{name}: {error}" if str(error) else name)
    assert "would end more than its task" in why
    assert name in str(arrived.__cause__)


def test_subclasses_of_orders_to_end_arrive_as_text():
    class Leave(SystemExit):
        pass

    assert as_text(Leave(2))[0].type_name.endswith("Leave")


def test_orders_to_end_in_a_chain_arrive_as_text():
    arrived = journey(while_handling(Sour(1), KeyboardInterrupt()))
    assert type(arrived) is Sour
    assert str(arrived.__context__) == "KeyboardInterrupt"


def test_a_class_that_is_not_there_when_it_is_read():
    class Vanishing(Exception):
        pass

    Vanishing.__qualname__ = "Vanishing"
    setattr(sys.modules[__name__], "Vanishing", Vanishing)  # noqa: B010
    record = dump(caused(Sour(1), Vanishing("gone")))
    delattr(sys.modules[__name__], "Vanishing")
    arrived = load_failure(record)
    assert arrived.degree == 1
    assert str(arrived.__cause__) == f"{__name__}.Vanishing: gone"
    assert "cannot be unpickled here: AttributeError" in arrived.__cause__.__notes__[-1]


def test_a_class_that_is_another_when_it_is_read(monkeypatch):
    record = dump(Sour(7))
    monkeypatch.setattr(sys.modules[__name__], "Sour", int)
    arrived = load_failure(record)
    assert type(arrived) is TaskError
    assert "here" in arrived.__notes__[0]


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_long_message_is_cut():
    record = dump(ValueError("x" * (10 << 20) + "end"))
    assert len(record) < 4 * TEXT_BYTES_MAX
    arrived = load_failure(record)
    assert type(arrived) is TaskError
    assert len(str(arrived)) < TEXT_BYTES_MAX + 100
    assert str(arrived).endswith("end")
    assert f"more than {PICKLE_BYTES_MAX:,} bytes" in arrived.__notes__[0]


def test_a_message_that_is_not_so_long_arrives():
    error = ValueError("x" * (PICKLE_BYTES_MAX - 1_000))
    assert journey(error).args == error.args


def test_something_large_among_the_attributes_is_not_pickled_to_its_end():
    class Written:
        bytes = 0

        def __reduce__(self):
            Written.bytes += 1 << 20
            return bytes, (1 << 20,)

    error = Sour(7)
    error.data = [b"x" * (1 << 20), *(Written() for _ in range(50))]
    as_text(error)
    assert Written.bytes <= 2 << 20


def test_all_pickles_together_are_bounded():
    error = Sour(0)
    for _ in range(20):
        error = caused(Sour(bytes(900_000)), error)
    record = dump(error)
    assert len(record) <= records.PICKLES_BYTES_MAX + (1 << 20)
    assert type(load_failure(record)) is Sour


def test_a_record_above_the_limit_holds_text_only():
    record = dump(Sour("x" * 100_000), bytes_max=10_000)
    assert len(record) <= 10_000
    arrived = load_failure(record)
    assert type(arrived) is TaskError
    assert arrived.type_name == f"{__name__}.Sour"
    assert "the limit is 10,000" in arrived.__notes__[0]
    assert "raise error" in arrived.traceback
    assert len(dump(Sour(1), bytes_max=1)) < 1_000
    assert type(load_failure(dump(Sour(1), bytes_max=10_000))) is Sour


def recurse(number):
    return recurse_more(number + 1)


def recurse_more(number):
    return recurse(number)


def test_the_end_of_the_stack():
    with pytest.raises(RecursionError) as caught:
        recurse(0)
    arrived = load_failure(dump_failure(caught.value, "fit-3", 2, 1))
    assert type(arrived) is RecursionError
    assert "recurse_more" in str(arrived.__cause__)
    assert len(str(arrived.__cause__)) < TEXT_BYTES_MAX + 100


def test_an_argument_that_is_too_deep_for_a_pickle():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    error = Sour(7)
    error.deep = deep
    arrived, _ = as_text(error)
    assert str(arrived).endswith("Sour: 7")


# -- anything ----------------------------------------------------------------------------------------------------------


def odd(number):
    error = Sour(number)
    error.lock = threading.Lock()
    return error


KINDS = [Sour, odd, lambda number: Needs(number, number), lambda number: SystemExit(number), Unruly, KeyError]


@given(st.data())
def test_any_web_of_exceptions_arrives(data):
    errors = []
    for number in range(data.draw(st.integers(1, 8))):
        if errors and data.draw(st.booleans()):
            members = data.draw(st.lists(st.sampled_from(errors), min_size=1, max_size=3, unique_by=id))
            errors.append(BaseExceptionGroup(str(number), members))
        else:
            errors.append(data.draw(st.sampled_from(KINDS))(number))
    for error in errors:
        for name in ("__cause__", "__context__"):
            if data.draw(st.booleans()):
                setattr(error, name, data.draw(st.sampled_from(errors)))
    raised = data.draw(st.sampled_from(errors))
    record = dump_failure(raised, "fit-3", 2, 1)
    arrived = load_failure(record)
    twins = {id(raised): (raised, arrived)}
    queue = [(raised, arrived)]
    for before, after in queue:
        assert isinstance(after, TaskError) or str(after) == str(before)
        pairs = [(before.__context__, after.__context__)]
        if before is not raised or before.__cause__ is not None:
            pairs.append((before.__cause__, after.__cause__))
        if isinstance(before, BaseExceptionGroup):
            assert len(before.exceptions) == len(after.exceptions)
            pairs += zip(before.exceptions, after.exceptions, strict=True)
        for left, right in pairs:
            assert (left is None) == (right is None)
            if left is not None:
                assert twins.setdefault(id(left), (left, right))[1] is right
                if len(twins) > len(queue):
                    queue.append((left, right))
    assert len({id(after) for _, after in twins.values()}) == len(twins)


@given(st.binary(max_size=64))
def test_the_traceback_of_an_exception_pickles_again(junk):
    error = journey(ValueError(junk))
    assert str(pickle.loads(pickle.dumps(error.__cause__))) == str(error.__cause__)


class Looking(Exception):
    def __getattr__(self, name):
        return self.args[0][name]


class Secretive(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("kind", [Looking, Secretive])
def test_attributes_that_cannot_be_read_cost_a_note_at_most(kind):
    arrived = journey(kind({}))
    assert type(arrived) is kind
    assert arrived.args == ({},)
    assert "raise error" in arrived.__cause__.text
