"""Live progress of a run: one line in a terminal, one HTML block in a notebook, one closing line elsewhere."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.runs import Run
    from headrace.statistics import Progress, RunStatistics

#: Seconds between two looks: often enough to look live, rare enough to cost the broker nothing.
REFRESH_S = 0.1


class Display(Protocol):
    """Something that shows a run."""

    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, statistics: RunStatistics) -> None:
        """Show the state of the run as it is now."""


def wait_and_show(run: Run, timeout: float | None = None) -> bool:
    """Wait for a run as `Run.wait` does, and show how far it is meanwhile."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with choose_display() as display:
        while True:
            left = REFRESH_S if deadline is None else min(REFRESH_S, deadline - time.monotonic())
            ended = run.wait(max(left, 0))
            display.show(run.statistics())
            if ended or left <= 0:
                return ended


def choose_display() -> Display:
    """Give the display that suits where this program runs."""
    if _in_notebook():
        return NotebookDisplay()
    if sys.stderr is not None and sys.stderr.isatty():
        return TerminalDisplay()
    return LineDisplay()


def describe(statistics: RunStatistics) -> str:
    """Say in one line how far a run is: `8,100 of 10,000 ended (2 failed), 64 running, 1,836 ready, 9,000 tasks/s`."""
    return ", ".join([_ended(statistics.progress), *_under_way(statistics.progress), _rate(statistics)])


def html(title: str, statistics: RunStatistics) -> str:
    """Show a run as a small block of HTML without scripts."""
    progress = statistics.progress
    share = 100 * progress.ended / max(progress.total, 1)
    colour = "#c0392b" if progress.failed or progress.skipped else "#2e86c1"
    return (
        '<div style="font-family: monospace; max-width: 60em">'
        f"<b>{escape(title)}</b>: {escape(describe(statistics))}"
        '<div style="background: #ddd; height: 0.5em; margin-top: 0.3em">'
        f'<div style="background: {colour}; height: 0.5em; width: {share:.1f}%"></div></div></div>'
    )


class TerminalDisplay:
    """A bar and the counts in one line, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)

    def __enter__(self) -> TerminalDisplay:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, statistics: RunStatistics) -> None:
        """Draw the line anew."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        progress = statistics.progress
        row = Table.grid(padding=(0, 1), expand=False)
        row.add_row(ProgressBar(total=max(progress.total, 1), completed=progress.ended, width=24), describe(statistics))
        self._live.update(row, refresh=True)


class NotebookDisplay:
    """A block of HTML that is replaced in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __enter__(self) -> NotebookDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the page."""

    def show(self, statistics: RunStatistics) -> None:
        """Replace the block."""
        from IPython.display import HTML, display

        block = HTML(html("headrace", statistics))  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(block, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(block)


class LineDisplay:
    """One line at the end, for logs and pipes."""

    def __init__(self) -> None:
        self._last: RunStatistics | None = None

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and sys.stderr is not None:
            print(f"headrace: {describe(self._last)}", file=sys.stderr)

    def show(self, statistics: RunStatistics) -> None:
        """Remember the state for the end."""
        self._last = statistics


def _in_notebook() -> bool:
    """Say whether a Jupyter kernel runs this program; IPython is never imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def _ended(progress: Progress) -> str:
    bad = [
        f"{count:,} {state}"
        for state, count in (
            ("failed", progress.failed),
            ("skipped", progress.skipped),
            ("cancelled", progress.cancelled),
        )
        if count
    ]
    return f"{progress.ended:,} of {progress.total:,} ended" + (f" ({', '.join(bad)})" if bad else "")


def _under_way(progress: Progress) -> list[str]:
    states = (("running", progress.leased), ("ready", progress.ready), ("waiting", progress.waiting))
    return [f"{count:,} {state}" for state, count in states if count]


def _rate(statistics: RunStatistics) -> str:
    per_s = statistics.progress.ended / statistics.elapsed_s if statistics.elapsed_s > 0 else 0.0
    return f"{per_s:,.0f} tasks/s"
