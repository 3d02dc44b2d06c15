"""What tasks print: where it comes out, when, and that nobody has to wait for whoever reads it."""

import fcntl
import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headrace.output import Stream, write_to

TIMEOUT_S = 30
HERE = Path(__file__).parent
START = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import headrace as hr
from client_tasks import inc, slowly, speak
def print_lines(count):
    for number in range(count):
        print("line", number)
"""


def start(text, **options):
    """Start a program of its own."""
    command = [sys.executable, "-W", "error", "-c", START + textwrap.dedent(text)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_lines_appear_while_nobody_waits():
    program = start(
        """
        client = hr.Client(workers=1)
        future = client.call(speak, "hello")
        sys.stdin.readline()
        client.close()
        """,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout.readline() == "[worker 0] hello\n"
    _, errors = program.communicate("go on\n", timeout=TIMEOUT_S)
    assert errors == "[worker 0] HELLO\n"


@pytest.mark.parametrize("end", ["client.close()", "client.close(cancel=True)", ""])
def test_lines_are_there_at_the_end(end):
    program = start(
        f"""
        client = hr.Client(workers=1)
        client.call(print_lines, 3000).result()
        client.call(inc, 1).result()
        {end}
        """,
        stdout=subprocess.PIPE,
    )
    out, errors = program.communicate(timeout=TIMEOUT_S)
    assert errors == ""
    assert out.splitlines() == [f"[worker 0] line {number}" for number in range(3_000)]


def test_whoever_reads_no_more_is_told_of_once():
    program = start(
        """
        with hr.Client(workers=1) as client:
            for _ in range(20):
                client.call(print_lines, 2_000).result()
        """,
        stdout=subprocess.PIPE,
    )
    assert program.stdout.readline() == "[worker 0] line 0\n"
    program.stdout.close()
    errors = program.stderr.read()
    assert program.wait(TIMEOUT_S) == 0
    (line,) = errors.splitlines()
    assert line.startswith("headrace: sys.stdout takes no more of what tasks print (BrokenPipeError")
    program.stderr.close()


def test_a_reader_who_sleeps_holds_nobody_up():
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    with start(
        f"""
        client = hr.Client(workers=1)
        future = client.call(print_lines, {size})
        future.result(timeout={TIMEOUT_S})
        client.call(inc, 1).result(timeout={TIMEOUT_S})
        try:
            print("waiting", file=sys.stderr, flush=True)
            client.call(slowly, {TIMEOUT_S}).result()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            client.close(cancel=True)
            print("closed", file=sys.stderr, flush=True)
        """,
        stdout=writer,
    ) as program:
        os.close(writer)
        lines = iter(program.stderr.readline, "")
        assert "waiting\n" in lines
        program.send_signal(signal.SIGINT)
        assert [line for line in lines if "worker" not in line] == ["interrupted\n", "closed\n"]
    os.close(reader)
    assert program.returncode == 0


def test_dropped_lines_are_counted_aloud():
    reader, writer = os.pipe()
    with start(
        """
        client = hr.Client(workers=1)
        def print_much():
            for _ in range(2_000):
                print("." * 5_000)
        client.call(print_much).result()
        print("over", file=sys.stderr, flush=True)
        sys.stdin.readline()
        client.close()
        """,
        stdout=writer,
        stdin=subprocess.PIPE,
    ) as program:
        os.close(writer)
        told = []
        while (line := program.stderr.readline()) != "over\n":
            told.append(line)  # where it was slow to begin
        with open(reader, "rb") as out:
            program.stdin.write("go on\n")
            program.stdin.flush()
            text = out.read()
        told += program.stderr.read().splitlines()
    assert 0 < len(text.replace(b"[worker 0] ", b"")) < 2_000 * 5_001
    assert told
    assert all("headrace" in line and " bytes of output " in line for line in told)


def test_a_stream_that_failed_is_left_alone(monkeypatch, capsys):
    class Full(io.StringIO):
        tried = 0

        def write(self, _text):
            Full.tried += 1
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    stream = Stream("stdout")
    stream.write("one\n")
    stream.write("two\n")
    assert Full.tried == 1
    expected = "headrace: sys.stdout takes no more of what tasks print (OSError: [Errno 28] No space left on device)\n"
    assert capsys.readouterr().err == expected
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    stream.write("three\n")
    assert sys.stdout.getvalue() == "three\n", "another file may do"
    sys.stdout.close()
    stream.write("four\n")
    monkeypatch.setattr(sys, "stdout", None)
    stream.write("five\n")


def test_a_file_gets_what_was_written_before_first(tmp_path):
    path = tmp_path / "log"
    with path.open("w", encoding="ascii") as file:
        file.write("before\n")
        write_to(file, "é\n" + "long\n" * 2_000)
        file.write("after\n")
    lines = path.read_text().splitlines()
    assert lines == ["before", r"\xe9", *["long"] * 2_000, "after"]
