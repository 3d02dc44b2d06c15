"""What headrace adds to an exception of a task."""

from __future__ import annotations


def whose(key: str, attempt: int, worker: int, failures: int) -> str:
    """Give the note on what a task raised."""
    return f"headrace: raised by task {key!r} (attempt {attempt}, worker {worker}){after(failures)}"


def after(failures: int) -> str:
    """Tell of retries, at the end of a text."""
    return "" if failures == 0 else " after 1 retry" if failures == 1 else f" after {failures:,} retries"


def add_note(error: BaseException, text: str, once: bool = False) -> None:
    """Add a note, if wished only where it is not yet; not where the class makes something else of its notes."""
    try:
        notes = error.__notes__
    except BaseException:  # mostly there are none
        notes = []
    try:
        before = notes if isinstance(notes, (list, tuple)) else []
        if not once or text not in before:
            object.__setattr__(error, "__notes__", [*before, text])
    except BaseException:
        return
