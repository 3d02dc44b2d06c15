"""Functions that run on workers on behalf of the graph's own verbs."""

from __future__ import annotations

import sys

from headrace.errors import GraphError

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headrace._core import Node


def item(value: Any, position: int, count: int) -> Any:
    """Give one item of a result that was split into `count`."""
    if not hasattr(value, "__len__"):
        value = tuple(value)
    if len(value) != count:
        problem = "too many" if len(value) > count else "not enough"
        raise ValueError(f"{problem} values to unpack (expected {count}, got {len(value)})")
    return value[position]


def constant(value: Any) -> Any:
    """Give a value to many tasks, so that it travels once."""
    return value


class Fold:
    """A left fold of adjacent results by a binary function."""

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, *values: Any) -> Any:
        """Fold the values from the left."""
        folded = values[0]
        for value in values[1:]:
            folded = self.fn(folded, value)
        return folded


def unpack_count(node: Node[Any]) -> int:
    """Say into how many names the caller's `a, b = node` unpacks, as its byte code tells."""
    from opcode import opmap

    frame = sys._getframe(1)
    at = frame.f_lasti
    code = frame.f_code.co_code
    plain = 0 <= at < len(code) and code[at] == opmap["UNPACK_SEQUENCE"]
    if plain and not (at >= 2 and code[at - 2] == opmap["EXTENDED_ARG"]):
        return code[at + 1]
    raise GraphError(
        f"node '{node.key}' can only be split when the number of items is known: "
        "write `a, b = node`, or say it in the options: add(fn.options(nout=…), …)"
    )
