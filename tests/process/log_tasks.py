"""Tasks that write, in every way that there is."""

import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import headrace as hr

#: What a mark begins with; honest text does not.
MAGIC = b"\xffhr\x00\xfe\x01"


def say(number):
    print(f"out {number}")
    print(f"err {number}", file=sys.stderr)
    print(f"end {number}", end="")
    return number


def what_say_wrote(number):
    return f"out {number}\nerr {number}\nend {number}"


def say_late(number, *_before):
    say(number)


def be_silent(*_before):
    pass


def report_by_logging():
    logging.warning("by logging")
    warnings.warn("by warnings", stacklevel=1)


def write_from_threads(count):
    def write(number):
        for line in range(50):
            print(f"{number}: {line}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_child():
    print("before")
    subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    print("after")


def die(path):
    """Die in the first attempt, after a few words of which the last have no end."""
    if Path(path).exists():
        print("better")
        return
    Path(path).touch()
    print("last words")
    print("unheard", end="")
    sys.stdout.flush()
    os.abort()


def fail_first(path):
    print("trying")
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("not yet")


def fail_with_words():
    print("before the end")
    raise ValueError("the end")


def write_much(lines, length):
    for number in range(lines):
        print(f"{number:08}".ljust(length - 1, "."))


def write_and_wait(path):
    print("I am here", flush=True)
    while not Path(path).exists():
        time.sleep(0.002)


def write_and_hang():
    try:
        print("begun")
        time.sleep(600)
    finally:
        print("stopped")


def replace_streams():
    sys.stdout = sys.stderr = None
    print("nowhere")


def close_streams():
    print("closing", end="")
    sys.stdout.close()
    os.write(1, b"")


def detach_stream():
    print("detached", end="")
    sys.stdout.detach()
    print("still here", end="", file=sys.stderr)


def write_bytes():
    sys.stdout.buffer.write(b"\x00\xff\xfe\n")
    sys.stdout.buffer.write(MAGIC + b"not a mark")


def write_to_descriptor():
    """Write what looks like a mark, where everybody can."""
    os.write(1, MAGIC + b"\xff" * 40 + b"\n")
    os.write(1, MAGIC)


def fork_child():
    print("parent")
    child = os.fork()
    if child == 0:
        print("child", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent again")


def leave_child(gate):
    """Leave a child behind that writes once the gate is there."""
    if os.fork() == 0:
        while not Path(gate).exists():
            time.sleep(0.002)
        print("child of another", flush=True)
        Path(gate).with_suffix(".done").touch()
        os._exit(0)


def open_gate(gate):
    Path(gate).touch()
    while not Path(gate).with_suffix(".done").exists():
        time.sleep(0.002)
    print("mine")


def redirect(path):
    """Put a file in the place of standard output, below Python."""
    before = os.dup(1)
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    print("into the file")
    os.dup2(before, 1)
    print("out again")


def logs_of_nested(number):
    """Give the logs of two tasks that this one submits."""
    print("before")
    client = hr.current_client()
    call = client.call(say, number)
    call.result()
    graph = hr.Graph()
    node = graph.add(say, number + 1)
    run = client.submit(graph)
    assert run.wait()
    print("behind")
    return call.logs(), run.logs(node)
