"""What a task raised, as a record: made on the worker, turned back into an exception on the client.

The exception itself travels, with its notes, its causes, and the members of a group. One that does not survive the
journey, or that would end the client's process, travels as text and arrives as `TaskError`.
"""

from __future__ import annotations

import _pickle
from typing import Any

from headrace.errors import TaskError

#: Longest pickle of an exception; longer ones (an array among the arguments) travel as text.
PICKLE_BYTES_MAX = 1 << 20

#: Longest text of any kind in a record.
TEXT_CHARACTERS_MAX = 1 << 16

#: Most exceptions in one record, causes and members together.
EXCEPTIONS_MAX = 1_000


class RemoteTraceback(Exception):
    """The traceback of a task in its worker, as text. It stands as the cause of what the task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def dump_failure(error: BaseException, key: str, attempt: int, worker: int) -> bytes:
    """Make the record of an exception that a task raised. Never raises."""
    record = {
        "key": key,
        "attempt": attempt,
        "worker": worker,
        "traceback": _traceback(error),
        "error": _dump(error, set()),
    }
    return _pickle.dumps(record, 5)


def load_failure(record: bytes) -> BaseException:
    """Give the exception of a record: what the task raised, with a note that names the task and the remote traceback as
    its cause (as a note if it has a cause already).
    """
    fields = _pickle.loads(record)
    key, attempt, worker = fields["key"], fields["attempt"], fields["worker"]
    error = _load(fields["error"])
    if isinstance(error, TaskError) and error.key is None:
        error.key, error.attempt, error.worker, error.traceback = key, attempt, worker, fields["traceback"]
    error.add_note(f"headrace: raised by task {key!r}, attempt {attempt}, worker {worker}")
    if error.__cause__ is None:
        error.__cause__ = RemoteTraceback(fields["traceback"])
    else:
        error.add_note(f"\n{fields['traceback']}")
    return error


# -- one exception -------------------------------------------------------------------------------------------------------


def _dump(error: BaseException, seen: set[int]) -> dict[str, Any]:
    """Take an exception apart; `seen` holds the identities of those that the record has already."""
    seen.add(id(error))
    part: dict[str, Any] = {
        "type_name": _type_name(error),
        "text": _text(error),
        "pickle": _whole(error),
        "notes": [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)],
    }
    if isinstance(error, BaseExceptionGroup):
        part["message"] = error.message
        part["members"] = [_dump(member, seen) for member in error.exceptions if _is_new(member, seen)]
    if error.__cause__ is not None and _is_new(error.__cause__, seen):
        part["cause"] = _dump(error.__cause__, seen)
    elif error.__context__ is not None and not error.__suppress_context__ and _is_new(error.__context__, seen):
        part["context"] = _dump(error.__context__, seen)
    return part


def _is_new(error: BaseException, seen: set[int]) -> bool:
    return id(error) not in seen and len(seen) < EXCEPTIONS_MAX


def _load(part: dict[str, Any]) -> BaseException:
    error = _load_whole(part)
    if error is None and part.get("members") and isinstance(part["message"], str):
        members = [_load(member) for member in part["members"]]
        error = ExceptionGroup(part["message"], [member for member in members if isinstance(member, Exception)])
    if error is None:
        error = TaskError(f"{part['type_name']}: {part['text']}", type_name=part["type_name"])
    for note in part["notes"]:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    if "cause" in part:
        error.__cause__ = _load(part["cause"])
    elif "context" in part:
        error.__context__ = _load(part["context"])
    return error


def _whole(error: BaseException) -> bytes | None:
    """Pickle an exception, unless it does not come back as it was or would do harm where it is raised."""
    if not isinstance(error, Exception) or _has_odd_member(error):
        return None
    try:
        pickle = _dumps(error)
        # An exception whose class takes other arguments than it keeps fails here, or comes back as something else.
        same = type(_pickle.loads(pickle)) is type(error)
    except Exception:
        return None
    return pickle if same and len(pickle) <= PICKLE_BYTES_MAX else None


def _has_odd_member(error: Exception) -> bool:
    """Say whether a group holds what its pickle would lose: causes, or members that do not travel by themselves."""
    if not isinstance(error, ExceptionGroup):
        return False
    return type(error) is ExceptionGroup or any(_whole(member) is None for member in error.exceptions)


def _dumps(error: Exception) -> bytes:
    pickle: bytes = b""
    try:
        pickle = _pickle.dumps(error, 5)
    except Exception:  # of a class that only cloudpickle can take along
        pass
    if not pickle or b"__main__" in pickle:
        import cloudpickle

        pickle = cloudpickle.dumps(error, protocol=5)
    return pickle


def _load_whole(part: dict[str, Any]) -> BaseException | None:
    if part["pickle"] is None:
        return None
    try:
        error = _pickle.loads(part["pickle"])
    except Exception:  # its module is not here, or is another one
        return None
    return error if isinstance(error, Exception) else None


# -- text ----------------------------------------------------------------------------------------------------------------


def _traceback(error: BaseException) -> str:
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # its own __str__ may raise
        text = f"{_type_name(error)}: {_text(error)}"
    return _cut(text)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return _cut(str(error))
    except Exception:
        return "(its text cannot be made)"


def _cut(text: str) -> str:
    """Shorten a text in the middle: both ends of a traceback tell something. Lone surrogates become marks."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    half = TEXT_CHARACTERS_MAX // 2
    return f"{text[:half]}\n…\n{text[-half:]}"
