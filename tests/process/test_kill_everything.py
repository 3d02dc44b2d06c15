"""SIGKILL to a program and all its workers at one random moment of its life: nothing is left but a small directory."""

import contextlib
import gc
import os
import random
import signal
import time

import pytest
from outside import RUN_DIR_BYTES_MAX, Home, Program, eventually, is_gone, script
from store_watch import machine_bytes

#: Seconds after which nothing may be left.
GONE_S = 5.0
#: What the programs have in shared memory at a time, at least.
SHARED_BYTES = 32 << 20

START = """
import headrace as hr
from client_tasks import inc
def say(word):
    print(word, flush=True)
"""

#: It goes on for ever: it starts up, computes with values small and large, and shuts down.
LIFE = f"""
import numpy as np
def ones(number):
    return np.full({SHARED_BYTES // 16}, number)
say("alive")
while True:
    with hr.Client(workers=2, store_limit=256 << 20) as client:
        graph = hr.Graph()
        sums = graph.map(np.sum, graph.map(ones, range(4)))
        small = graph.map(inc, range(2_000))
        run = client.submit(graph, keep=[*sums, *small])
        ref = client.put(np.ones({SHARED_BYTES // 8}))
        assert client.call(len, ref).result() == {SHARED_BYTES // 8}
        assert run.results()[-1] == 2_000
"""

#: What starts next, in the same folder.
NEXT = "with hr.Client(workers=2) as client: say(client.call(inc, 1).result())"


def kill_everything(home, dice):
    """One round. Programs are killed in their first second: start-up, work and shutdown take turns several times."""
    with Program(home, *script(START, LIFE)) as program:
        if dice.random() < 0.7:
            assert program.line() == "alive\n"
        time.sleep(dice.random() ** 2)  # early moments are the more interesting ones
        memory = program.memory()
        # The client first or last: a worker that outlives its broker by a moment has one more way to leave something.
        pids = sorted(program.pids(), reverse=dice.random() < 0.5)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # its parent went first
                os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        program.process.wait(GONE_S)
        # What a process started in the moment between the look and the kill dies with its parent.
        assert program.ended_within(GONE_S, start), f"processes are left: {program.pids()}"
        assert is_gone(memory, GONE_S - (time.monotonic() - start)), "shared memory is left"
    left = home.run_dirs()
    assert len(left) <= 1, left
    assert home.bytes() <= RUN_DIR_BYTES_MAX
    return len(memory)


def check_next_start(home):
    with Program(home, *script(START, NEXT)) as program:
        assert program.end() == (0, "2\n", "")
        assert home.run_dirs() == [], "what was left is gone"


def check_rounds(seeds):
    blocks = 0
    for seed in seeds:
        with Home() as home:
            blocks += kill_everything(home, random.Random(seed))
            check_next_start(home)
    assert blocks >= 2 * len(seeds), "there was hardly anything to leave"


@pytest.mark.timeout(180)
def test_nothing_is_left_of_ten_programs_that_are_killed_with_all_they_started():
    check_rounds(range(10))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_nothing_is_left_of_two_hundred_programs_that_are_killed_with_all_they_started():
    gc.collect()
    before = machine_bytes()
    check_rounds(range(1_000, 1_200))
    # Others may use this machine as well; what two hundred programs would have left is far more.
    assert eventually(lambda: machine_bytes() <= before + 8 * SHARED_BYTES), "shared memory of the machine is gone"
