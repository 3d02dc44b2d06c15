"""Which pickles name something of `__main__`: checked against a reading of the same pickle by the standard library."""

import pickle
import pickletools
import sys
import types
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace._core import names_main

MAIN = "__main__"


class Thing:
    """Under two names: here, and as if it were a program's own."""

    def __init__(self, *parts):
        self.parts = parts


Own = types.new_class("Own", (Thing,))
Own.__module__ = MAIN
Own.__qualname__ = "Own"


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(sys.modules[MAIN], "Own", Own, raising=False)


def globals_in(pickled):
    """The modules of all globals, by the standard library's reading."""
    modules, memo, stack = set(), [], []
    for operation, argument, _ in pickletools.genops(pickled):
        match operation.name:
            case "STACK_GLOBAL":
                modules.add(stack[-2])
                stack.append(None)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "MEMOIZE":
                memo.append(stack[-1])
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "PROTO" | "FRAME":
                pass
            case _:
                stack.append(None)
    return modules


def things(parts):
    return st.lists(parts, max_size=3).map(lambda parts: Thing(*parts)) | st.lists(parts, max_size=3).map(
        lambda parts: Own(*parts)
    )


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([MAIN, "Own", "main", "x" * 300, "y" * 70_000, MAIN + "."])
    | st.binary(max_size=300)
    | st.sampled_from([Own, Thing, len, MAIN.encode(), bytearray(b"__main__"), b"z" * 70_000])
)
values = st.recursive(
    atoms,
    lambda parts: (
        st.lists(parts, max_size=6)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(st.sampled_from([MAIN, "Own", 1, None]), parts, max_size=3)
        | things(parts)
        | st.frozensets(st.sampled_from([MAIN, "Own", 1, Own]), max_size=3)
    ),
    max_leaves=40,
)


@given(values)
def test_it_says_what_the_standard_library_reads(value):
    pickled = pickle.dumps(value, 5)
    assert names_main(pickled) == (MAIN in globals_in(pickled))


def test_the_text_alone_is_no_name():
    assert not names_main(pickle.dumps([MAIN, (MAIN, "Own"), {MAIN: Thing}], 5))
    assert names_main(pickle.dumps([MAIN, (MAIN, "Own"), {MAIN: Own}], 5)), "its module comes out of the memo here"


def test_many_things_before_it_make_no_difference():
    before = [(number, str(number)) for number in range(5_000)]
    assert names_main(pickle.dumps([MAIN, before, Own], 5))
    assert not names_main(pickle.dumps([MAIN, before, Thing], 5))


@pytest.mark.parametrize("broken", [b"", b"\x80", b"cos\nsystem\n.", b"\x80\x05\x8c\xffabc", b"\x80\x05N"])
def test_it_says_yes_to_what_it_cannot_read(broken):
    assert names_main(broken)


def test_python_s_own_filters_of_warnings_need_no_pickle_by_value(monkeypatch):
    # scikit-learn sends them along with every call.
    filters = [("default", None, DeprecationWarning, MAIN, 0), *warnings.filters]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with hr.Client(workers=1) as client:
        assert client.call(len, [Filters(filters)]).result(timeout=30) == 1


class Filters:
    def __init__(self, filters):
        self.filters = filters
