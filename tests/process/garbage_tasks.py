"""Functions that leave garbage behind which only the collector finds, with views of large results in it."""

from pathlib import Path

import headrace as hr


def in_a_list(array):
    """A list that contains itself."""
    row = [array]
    row.append(row)
    return float(array[0])


def in_an_exception(array):
    """An exception that is kept where it was caught: its traceback has the frame, and the frame has it."""
    try:
        raise ValueError("kept")
    except ValueError as error:
        kept = error
    return float(array[0]) if kept else None


def of_its_own(items, *_after):
    """An array in place that is no result."""
    row = [hr.empty(items)]
    row.append(row)


def filled_and_noted(value, items, path):
    """Make an array in place, then a file."""
    array = hr.empty(items)
    array[:] = value
    Path(path).touch()
    return array
