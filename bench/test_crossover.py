"""From which size on does shared memory win over values in frames?

One array of bytes of 1 KiB to 64 MiB is made anew for each hand-over, and is handed from a task on worker 0 to a task
on worker 1 that reads a byte of each page, or to one that reads nothing, one by one or many at once; or to the client.
Two clients take turns: the workers of one send every result in its frame, those of the other put it into a block
whatever its size.

`python -m pytest bench/test_crossover.py --plot` draws docs/crossover.svg as well, with matplotlib.
"""

import gc
import importlib.util
import time

import pytest

import headrace
from crossing import KIB, MIB, Curves, draw, size_text
from figures import at_most
from large_workloads import handed, made_anew, paged
from repository import REPOSITORY

SIZES = [KIB << power for power in range(17)]
#: How many hand-overs one turn has at most, one by one and at once, and how many bytes altogether.
ONE_BY_ONE, AT_ONCE, BYTES_A_TURN = 16, 256, 4 * MIB
#: The limit that headrace has by default should lie near all crossings.
LIMIT_BYTES = 64 * KIB
ALL_INLINE = {"HEADRACE_INLINE_BYTES_MAX": "none"}
ALL_IN_BLOCKS = {"HEADRACE_INLINE_BYTES_MAX": "512"}
PLOT = REPOSITORY / "docs" / "crossover.svg"


@pytest.fixture(scope="module")
def clients():
    with headrace.Client(workers=2, env=ALL_INLINE) as frames, headrace.Client(workers=2, env=ALL_IN_BLOCKS) as blocks:
        yield frames, blocks


def test_crossover(clients, rounds, record, card, request):
    if request.config.getoption("--plot") and importlib.util.find_spec("matplotlib") is None:
        pytest.fail("--plot needs matplotlib: pip install '.[bench]'")
    measures = {
        "to a task that reads each page": lambda client, size: one_by_one(client, paged, size),
        "to a task that reads nothing": lambda client, size: one_by_one(client, handed, size),
        "many at once, reading each page": at_once,
        "to the client, which reads each page": to_client,
    }
    frames, blocks = clients
    curves = [Curves(shape) for shape in measures]
    for number in range(rounds + 1):
        for size in SIZES:
            for pair, measure in zip(curves, measures.values(), strict=True):
                for client, into in in_turn_of(number, (frames, pair.inline_s), (blocks, pair.block_s)):
                    gc.collect()
                    measure(client, SIZES[0])  # what others have left is over, and the workers are awake
                    seconds = measure(client, size)
                    if number > 0:  # the first round maps segments and warms memory
                        into.setdefault(size, []).append(seconds)
    for pair in curves:
        record(crossing_figure(pair))
    if request.config.getoption("--plot"):
        draw(curves, PLOT, ", ".join(f"{name} {card[name]}" for name in ("date", "commit", "cpu", "cores", "load")))


def in_turn_of(number, *arms):
    """The arms, from round to round in the other order."""
    return arms if number % 2 else reversed(arms)


def one_by_one(client, read, size):
    """Seconds of a hand-over from worker to worker, with the token back to the first."""
    make, read = headrace.task(made_anew, worker=0), headrace.task(read, worker=1)
    count = hand_overs(size, ONE_BY_ONE)
    start = time.perf_counter()
    graph = headrace.Graph()
    token = 0
    for _ in range(count):
        token = graph.add(read, graph.add(make, size, token), token)
    value = client.submit(graph).result(token)
    seconds = time.perf_counter() - start
    assert value == count
    return seconds / count


def at_once(client, size):
    """Seconds of a hand-over from worker to worker where nothing waits for the last one."""
    make, read = headrace.task(made_anew, worker=0), headrace.task(paged, worker=1)
    tokens = range(hand_overs(size, AT_ONCE))
    start = time.perf_counter()
    graph = headrace.Graph()
    for token in tokens:
        graph.add(read, graph.add(make, size, token), token)
    values = client.submit(graph).results()
    seconds = time.perf_counter() - start
    assert values == [token + 1 for token in tokens]
    return seconds / len(tokens)


def to_client(client, size):
    """Seconds from a call to its value read in this process."""
    make = headrace.task(made_anew, worker=0)
    count = hand_overs(size, ONE_BY_ONE)
    start = time.perf_counter()
    for token in range(count):
        assert paged(client.call(make, size, token).result(), token) == token + 1
    return (time.perf_counter() - start) / count


def hand_overs(size, most):
    """How many there are in one turn: a few long ones, or enough short ones to be seen."""
    return min(most, max(1, BYTES_A_TURN // size))


def crossing_figure(pair):
    """The size at which a block begins to win, and what it wins at both ends."""
    crossing = pair.crossing()
    small, limit, large = (
        sorted(pair.ratios(size))[len(pair.ratios(size)) // 2] for size in (SIZES[0], LIMIT_BYTES, SIZES[-1])
    )
    return at_most(
        f"values made anew, {pair.shape}: size from which a block is faster than the frame",
        [float("inf") if crossing is None else crossing / KIB],
        "KiB",
        bar=4 * LIMIT_BYTES / KIB,
        aim=2 * LIMIT_BYTES / KIB,
        measured="never" if crossing is None else size_text(crossing),
        reference=f"limit by default {size_text(LIMIT_BYTES)}",
        detail=f"speed of the block {small:.2f}× at 1 KiB, {limit:.2f}× at 64 KiB, {large:.3g}× at 64 MiB",
    )
