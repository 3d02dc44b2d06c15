"""How progress is shown: in a terminal, in a notebook, and in a log."""

import io
import sys
import types

import pytest

import headrace as hr
from headrace import progress
from headrace.statistics import Progress, RunStatistics

HALF_WAY = RunStatistics(20, 10, 5, 60, 3, 2, 0, 0.001, 0.5)


def test_a_line_says_counts_and_rate():
    assert progress.describe(HALF_WAY) == (
        "65 of 100 ended (3 failed, 2 skipped), 5 running, 10 ready, 20 waiting, 130 tasks/s"
    )
    nothing = RunStatistics(0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
    assert progress.describe(nothing) == "0 of 0 ended, 0 tasks/s"


def test_a_block_escapes_its_title_and_has_no_script():
    block = progress.html("<b>mine", HALF_WAY)
    assert "&lt;b&gt;mine" in block
    assert "width: 65.0%" in block
    assert "<script" not in block


def test_counts_add_up():
    assert HALF_WAY.progress == Progress(20, 10, 5, 60, 3, 2, 0)
    assert (HALF_WAY.progress.total, HALF_WAY.progress.ended) == (100, 65)


@pytest.fixture
def run():
    graph = hr.Graph()
    graph.map(abs, range(50))
    with hr.Client(mode="sync") as client:
        yield client.submit(graph)


def test_a_log_gets_one_line_at_the_end(run, capsys):
    assert run.wait(progress=True)
    assert capsys.readouterr().err.startswith("headrace: 50 of 50 ended, ")


def test_a_terminal_gets_a_bar(run, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert isinstance(progress.choose_display(), progress.TerminalDisplay)
    assert run.wait(progress=True)
    assert "50 of 50 ended" in terminal.getvalue()


def test_a_notebook_gets_one_block_that_is_replaced(run, monkeypatch):
    shown = []

    class Handle:
        def update(self, block):
            shown.append(block.data)

    def display(block, display_id):
        shown.append(block.data)
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    ipython.display.HTML = lambda data: types.SimpleNamespace(data=data)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(progress, "REFRESH_S", 0)
    with progress.choose_display() as notebook:
        notebook.show(HALF_WAY)
        notebook.show(run.statistics())
    assert len(shown) == 2
    assert "65 of 100" in shown[0]
    assert "50 of 50" in shown[1]


def test_ipython_in_a_terminal_is_a_terminal(monkeypatch):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: object()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not isinstance(progress.choose_display(), progress.NotebookDisplay)


def test_a_timeout_ends_the_display_too(monkeypatch):
    class Never:
        def wait(self, timeout):
            return False

        def statistics(self):
            return HALF_WAY

    assert progress.wait_and_show(Never(), timeout=0) is False
