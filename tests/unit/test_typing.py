"""What a type checker says of a program that uses headrace."""

import subprocess
import sys

import pytest

PROGRAM = """
from typing import assert_type
import headrace as hr

def inc(number: int) -> int:
    return number + 1

@hr.task(key="it")
def load(path: str) -> bytes:
    return b""

graph = hr.Graph()
node = graph.add(inc, 1)
with hr.Client() as client:
    run = client.submit(graph, keep=[node])
    first = client.call(inc, 1)
    assert_type(client.call(inc, first).result(), int)
    assert_type(client.call(inc, run.ref(node)).result(), int)
    assert_type(client.call(load, "path").result(), bytes)
    assert_type(run.result(node), int)
try:
    hr.run(graph)
except hr.CancelledError as error:
    assert_type(error.reason, str)
hr.Clinet()
hr.errors.Nonsense
"""


def test_a_checker_knows_the_names_and_lets_futures_be_arguments(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert [line.partition("error: ")[2] for line in said.splitlines()] == [
        'Module has no attribute "Clinet"  [attr-defined]',
        'Module has no attribute "Nonsense"  [attr-defined]',
    ]
