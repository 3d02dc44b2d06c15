"""What a task raised, as a record: made in the worker, turned back into an exception in the client.

The exception itself travels, with its notes, its causes and contexts, and the members of a group. Each of these is a
part of its own, so that one that cannot travel becomes text (a `TaskError`) and the rest arrives as it was. The worker
tries the journey first: it makes every exception again from its pickle, as the client will, and compares.
"""

from __future__ import annotations

import _pickle
import io
import sys
from typing import Any, NamedTuple

from headrace.errors import TaskError
from headrace.notes import add_note, whose
from headrace.pickling import explain, is_importable, reducers_of

#: Longest pickle of one exception; longer ones (an array among the arguments) travel as text.
PICKLE_BYTES_MAX = 1 << 20

#: Most bytes of all pickles of a record; what the raised exception may need itself is set aside.
PICKLES_BYTES_MAX = 4 << 20

#: Longest traceback, and longest text of the exception that was raised.
TEXT_BYTES_MAX = 1 << 16

#: Longest text of each exception besides the one that was raised.
PART_TEXT_BYTES_MAX = 1 << 12

#: Most notes of an exception that travels as text.
NOTES_MAX = 16

#: Most exceptions in one record, causes and members together. The traceback tells of more.
PARTS_MAX = 1_000

#: Why an order to leave, or to stop waiting, travels as text.
ENDS_MORE = "raised in the client, it would end more than its task"


class RemoteTraceback(Exception):  # noqa: N818  (it tells of an error, and is none)
    """The traceback of a task in its worker, as text. It stands as the cause of what the task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class Part(NamedTuple):
    """One exception of a record. The others go by their numbers; those that its pickle cites have lower ones.

    Attributes:
        type_name: qualified name of its class.
        text: what `str` gives.
        notes: its notes, which its pickle holds as well.
        pickle: the exception without cause and context, or None if it travels as text.
        obstacle: why it travels as text.
        message: the message of a group, or None.
        members: the members of a group.
        left_out: how many members of a group are not in the record.
        cause: its `__cause__`.
        context: its `__context__`.
        suppress_context: its `__suppress_context__`.
    """

    type_name: str
    text: str
    notes: list[str]
    pickle: bytes | None
    obstacle: str
    message: str | None
    members: list[int]
    left_out: int
    cause: int | None
    context: int | None
    suppress_context: bool


class Record(NamedTuple):
    """A failure as it travels.

    Attributes:
        key: the task.
        attempt: number of the attempt.
        worker: number of the worker.
        traceback: the traceback in the worker.
        classes: pickles of the classes that cannot be imported, by the id that cloudpickle gave them.
        parts: the exceptions.
        raised: number of the one that the task raised.
        failures: attempts of the task that failed before.
    """

    key: str
    attempt: int
    worker: int
    traceback: str
    classes: dict[str, bytes]
    parts: list[Part]
    raised: int
    failures: int = 0


# -- in the worker -----------------------------------------------------------------------------------------------------


def dump_failure(
    error: BaseException, key: str, attempt: int, worker: int, bytes_max: int | None = None, failures: int = 0
) -> bytes:
    """Make the record of an exception that a task raised.

    Never raises: what methods of an exception raise meanwhile, even an interrupt, makes text of that exception.

    Args:
        error: the exception. Its class is called once more, to see whether it takes its own arguments.
        key: the task.
        attempt: number of the attempt.
        worker: number of the worker.
        bytes_max: a record that would be longer holds text only.
        failures: attempts of the task that failed before.
    """
    try:
        packer = _Packer(error)
        packer.pack()
        raised = packer.numbers[id(error)]
        record = _pickle.dumps(
            Record(key, attempt, worker, _traceback(error), packer.classes, packer.parts, raised, failures), 5
        )
        if bytes_max is None or len(record) <= bytes_max:
            return record
        obstacle = f"its record takes {len(record):,} bytes; the limit is {bytes_max:,}"
    except BaseException as problem:
        obstacle = f"it cannot be recorded: {_name_and_text(problem)}"
    text_max = TEXT_BYTES_MAX if bytes_max is None else min(TEXT_BYTES_MAX, bytes_max // 4)
    part = Part(_type_name(error), _text(error, text_max), [], None, obstacle, None, [], 0, None, None, False)
    return _pickle.dumps(Record(key, attempt, worker, _traceback(error, text_max), {}, [part], 0, failures), 5)


class _Packer:
    """Takes an exception apart, and makes each part again as the client will."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised
        self.errors = _members_first(_reachable(raised))
        self.numbers = {id(error): number for number, error in enumerate(self.errors)}
        self.parts: list[Part] = []
        self.classes: dict[str, bytes] = {}
        self._rebuilt: list[BaseException] = []
        self._bytes_left = PICKLES_BYTES_MAX - PICKLE_BYTES_MAX

    def pack(self) -> None:
        for error in self.errors:
            part, copy = self._describe(error), None
            if not part.obstacle:
                try:
                    pickle = self._dump(error)
                    copy = self._copy(error, pickle)
                    part = part._replace(pickle=pickle)
                except BaseException as problem:
                    part = part._replace(obstacle=_cut(_obstacle(error, problem), PART_TEXT_BYTES_MAX))
            self.parts.append(part)
            self._rebuilt.append(copy or _stand_in(part, self._rebuilt))

    def _describe(self, error: BaseException) -> Part:
        members = _members(error)
        numbers = [self.numbers[id(member)] for member in members if id(member) in self.numbers]
        left_out = len(members) - len(numbers)
        obstacle = f"a record holds {PARTS_MAX:,} exceptions" if left_out else ""
        if issubclass(type(error), _ending_classes()):
            obstacle = ENDS_MORE
        text_max = TEXT_BYTES_MAX if error is self.raised else PART_TEXT_BYTES_MAX
        return Part(
            type_name=_type_name(error),
            text=_text(error, text_max),
            notes=_notes(error),
            pickle=None,
            obstacle=obstacle,
            message=_cut(_own(error, "message"), text_max) if isinstance(error, BaseExceptionGroup) else None,
            members=numbers,
            left_out=left_out,
            cause=self.numbers.get(id(_own(error, "__cause__"))),
            context=self.numbers.get(id(_own(error, "__context__"))),
            suppress_context=_own(error, "__suppress_context__"),
        )

    def _dump(self, error: BaseException) -> bytes:
        bytes_max = PICKLE_BYTES_MAX if error is self.raised else min(PICKLE_BYTES_MAX, self._bytes_left)
        try:
            pickle = self._dump_by(_pickle.Pickler, error, bytes_max)
        except _TooLongError:
            raise
        except Exception:  # it holds what only cloudpickle can take along
            from headrace import dynamic_code

            pickle = self._dump_by(dynamic_code.Pickler, error, bytes_max)
        if error is not self.raised:
            self._bytes_left -= len(pickle)
        return pickle

    def _dump_by(self, base: Any, error: BaseException, bytes_max: int) -> bytes:
        this, numbers, classes = len(self.parts), self.numbers, self.classes

        class Pickler(base):  # type: ignore[misc]
            dispatch_table = reducers_of(base)

            def persistent_id(self, thing: Any) -> int | str | None:
                if isinstance(thing, BaseException):
                    number = numbers.get(id(thing), this)
                    return number if number < this else None
                if isinstance(thing, type) and not is_importable(thing):
                    return _dump_class(thing, classes)
                return None

        out = _Bounded(bytes_max)
        Pickler(out, 5).dump(error)
        return out.getvalue()

    def _copy(self, error: BaseException, pickle: bytes) -> BaseException:
        """Make the exception again.

        Raises:
            _NotTheSameError: it is not what it was.
        """
        copy: BaseException = _load(pickle, self._rebuilt, self.classes)
        kinds = {type(error), ExceptionGroup} if type(error) is BaseExceptionGroup else {type(error)}
        if type(copy) not in kinds:
            raise _NotTheSameError(f"its pickle gives {_type_name(copy)}")
        if not _is_alike(_own(copy, "args"), _own(error, "args")):
            raise _NotTheSameError("its pickle gives one with other arguments")
        expected = [self._rebuilt[self.numbers[id(member)]] for member in _members(error)]
        if list(map(id, _members(copy))) != list(map(id, expected)):
            raise _NotTheSameError("its pickle gives a group of others")
        return copy


class _NotTheSameError(Exception):
    """What came out of a pickle is not what went in."""


class _TooLongError(Exception):
    """A pickle is longer than it may be."""


class _Bounded(io.BytesIO):
    """Stops a pickler early, before the bytes of something large are all there."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self._bytes_max = bytes_max

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._bytes_max:
            raise _TooLongError(f"it takes more than {self._bytes_max:,} bytes")
        return super().write(data)


def _dump_class(kind: type, classes: dict[str, bytes]) -> str:
    # A class that came from the client has an id there. Loading its pickle there once more would replace what it holds
    # by copies: methods with other globals, counters as they were.
    from cloudpickle import cloudpickle as by_value

    name: str = by_value._get_or_create_tracker_id(kind)
    if name not in classes:
        classes[name] = b""  # in case that it holds exceptions of its own kind
        classes[name] = by_value.dumps(kind, protocol=5)
    return name


def _ending_classes() -> tuple[type[BaseException], ...]:
    """Give the exceptions that are orders to whoever runs the code: to leave, to stop waiting."""
    asyncio = sys.modules.get("asyncio")
    return KeyboardInterrupt, SystemExit, GeneratorExit, *([asyncio.CancelledError] if asyncio else [])


def _obstacle(error: BaseException, problem: BaseException) -> str:
    if isinstance(problem, (_NotTheSameError, _TooLongError)):
        return str(problem)
    if isinstance(problem, Exception):  # what interrupts is not called a second time
        try:
            path, reason = explain(error) or ("", "")
        except BaseException:
            path, reason = "", ""
        if reason:
            return f"{path}: {reason}" if path else reason
    return f"it cannot be made again from its pickle: {_name_and_text(problem)}"


def _is_alike(one: Any, other: Any, levels: int = 4) -> bool:
    """Say whether an argument came back: exactly for atoms and lists and tuples of them, by its class otherwise."""
    if isinstance(one, BaseException) or isinstance(other, BaseException):
        return True
    if type(one) is not type(other):
        return False
    if type(one) in (str, bytes, int, float, complex, bool):
        return bool(one == other or one != one)
    if type(one) in (tuple, list) and levels:
        return len(one) == len(other) and all(map(_is_alike, one, other, [levels - 1] * len(one)))
    return True


# -- in the client -----------------------------------------------------------------------------------------------------


def load_failure(record: bytes) -> BaseException:
    """Give the exception of a record, with a note that names the task and with the traceback in the worker.

    The traceback is its cause, or a note if it has a cause already.
    """
    failure: Record = _pickle.loads(record)
    errors: list[BaseException] = []
    for part in failure.parts:
        errors.append(_rebuild(part, errors, failure))
    for part, error in zip(failure.parts, errors, strict=True):
        _set_own(error, "__context__", None if part.context is None else errors[part.context])
        _set_own(error, "__cause__", None if part.cause is None else errors[part.cause])
        _set_own(error, "__suppress_context__", part.suppress_context)
    raised = errors[failure.raised]
    add_note(raised, whose(failure.key, failure.attempt, failure.worker, failure.failures))
    if _own(raised, "__cause__") is None:
        _set_own(raised, "__cause__", RemoteTraceback(failure.traceback))
        _set_own(raised, "__suppress_context__", failure.parts[failure.raised].suppress_context)
    else:
        add_note(raised, f"\n{failure.traceback}")
    return raised


def _rebuild(part: Part, errors: list[BaseException], failure: Record) -> BaseException:
    if part.pickle is not None:
        try:
            error = _load(part.pickle, errors, failure.classes)
            if isinstance(error, BaseException):
                return error
            obstacle = f"its pickle gives {type(error).__name__} here"
        except Exception as problem:  # its module is not here, or is another one
            obstacle = f"it cannot be unpickled here: {_name_and_text(problem)}"
        part = part._replace(obstacle=obstacle)
    return _stand_in(part, errors, failure)


def _stand_in(part: Part, errors: list[BaseException], failure: Record | None = None) -> BaseException:
    """Make what arrives in place of an exception that does not: a plain group of the same members, or its text."""
    error: BaseException
    if part.members:
        error = BaseExceptionGroup(part.message or "", [errors[number] for number in part.members])
        obstacle = f"headrace: this was a group of class {part.type_name}, but {part.obstacle}"
        if part.left_out:
            obstacle += f"; {part.left_out:,} members are left out"
    else:
        text = f"{part.type_name}: {part.text}" if part.text else part.type_name
        error = TaskError(text, type_name=part.type_name)
        if failure is not None:
            error.key, error.attempt, error.worker = failure.key, failure.attempt, failure.worker
            error.traceback = failure.traceback
        obstacle = f"headrace: this {part.type_name} arrives as text: {part.obstacle}"
    for note in [*part.notes, obstacle]:
        error.add_note(note)
    return error


def ordinary(error: BaseException, key: str, attempt: int, worker: int) -> BaseException:
    """Give an exception of a task in this process as it is, or its text with itself as the cause.

    Text stands for what is an order to whoever runs the code.
    """
    if not issubclass(type(error), _ending_classes()):
        return error
    text = _text(error, TEXT_BYTES_MAX)
    part = Part(_type_name(error), text, _notes(error), None, ENDS_MORE, None, [], 0, None, None, False)
    failure = _stand_in(part, [], Record(key, attempt, worker, _traceback(error), {}, [part], 0))
    failure.__cause__ = error
    return failure


# -- pickles -----------------------------------------------------------------------------------------------------------


def _load(pickle: bytes, errors: list[BaseException], classes: dict[str, bytes]) -> Any:
    return _Unpickler(pickle, errors, classes).load()


class _Unpickler(_pickle.Unpickler):
    def __init__(self, pickle: bytes, errors: list[BaseException], classes: dict[str, bytes]) -> None:
        super().__init__(io.BytesIO(pickle))
        self._errors = errors
        self._classes = classes

    def persistent_load(self, pid: int | str) -> Any:
        if isinstance(pid, int):
            return self._errors[pid]
        from cloudpickle import cloudpickle as by_value

        known = by_value._DYNAMIC_CLASS_TRACKER_BY_ID.get(pid)
        return _pickle.loads(self._classes[pid]) if known is None else known


# -- what hangs together -----------------------------------------------------------------------------------------------


def _reachable(error: BaseException) -> list[BaseException]:
    """Give an exception and all that it has as members, causes and contexts, nearest first."""
    found = {id(error): error}
    queue = [error]
    for near in queue:
        for other in (*_members(near), _own(near, "__cause__"), _own(near, "__context__")):
            if other is not None and id(other) not in found and len(found) < PARTS_MAX:
                found[id(other)] = other
                queue.append(other)
    return queue


def _members_first(errors: list[BaseException]) -> list[BaseException]:
    """Order exceptions: groups after their members, and otherwise causes before what they caused."""
    known = set(map(id, errors))
    ordered: dict[int, BaseException] = {}
    for error in reversed(errors):
        stack = [error]
        while stack:
            waiting = [one for one in _members(stack[-1]) if id(one) in known and id(one) not in ordered]
            if waiting:
                stack += waiting
            else:
                top = stack.pop()
                ordered.setdefault(id(top), top)
    return list(ordered.values())


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return _own(error, "exceptions") if isinstance(error, BaseExceptionGroup) else ()


def _own(error: BaseException, name: str) -> Any:
    """Give a built-in attribute of an exception, whatever its class makes of the name."""
    kind = BaseExceptionGroup if name in ("message", "exceptions") else BaseException
    return vars(kind)[name].__get__(error)


def _set_own(error: BaseException, name: str, value: object) -> None:
    vars(BaseException)[name].__set__(error, value)


# -- text --------------------------------------------------------------------------------------------------------------


def _traceback(error: BaseException, bytes_max: int = TEXT_BYTES_MAX) -> str:
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # methods of its own had a part in it
        text = "".join(traceback.format_tb(error.__traceback__)) + _name_and_text(error)
    return _cut(text, bytes_max)


def _name_and_text(error: BaseException) -> str:
    return f"{_type_name(error)}: {_text(error, PART_TEXT_BYTES_MAX)}"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    try:
        name = f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # its metaclass objects
        return "an exception"
    return _cut(name.removeprefix("builtins.").removeprefix("__main__."), PART_TEXT_BYTES_MAX)


def _text(error: BaseException, bytes_max: int) -> str:
    try:
        return _cut(str(error), bytes_max)
    except BaseException:
        return "(its text cannot be made)"


def _notes(error: BaseException) -> list[str]:
    try:
        notes = [note for note in error.__notes__[:NOTES_MAX] if isinstance(note, str)]
    except BaseException:  # mostly there are none
        return []
    return [_cut(note, PART_TEXT_BYTES_MAX) for note in notes]


def _cut(text: str, bytes_max: int) -> str:
    """Shorten a text in the middle: both ends of a traceback tell something. Lone surrogates become marks."""
    raw = str.encode(text, "utf-8", "backslashreplace")
    if len(raw) > bytes_max:
        half = bytes_max // 2
        raw = raw[:half] + b"\n[...]\n" + raw[len(raw) - half :]
    return raw.decode(errors="ignore")
