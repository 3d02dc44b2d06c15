"""What do the same hand-overs of large values cost with Dask distributed and with Ray?

An array of 200 MB passes through ten tasks on two workers by turns that return it, is put, and is taken as a result.
Each peer runs in an interpreter that has it: this one, or one of those that `HEADRACE_PEER_PYTHON` names, with colons
between them. The peers and headrace take turns within one run.
"""

import os
import statistics
import sys
import time

import numpy as np
import pytest

import headrace
from figures import Figure
from large_turns import HOPS, ITEMS, chain, check_ends, in_turn, milliseconds, settle, timed
from large_workloads import ends, ones, untouched
from other_interpreter import OtherInterpreter, can_import

PEERS = {"dask": "distributed", "ray": "ray"}
PYTHONS = "HEADRACE_PEER_PYTHON"
#: A turn of a peer takes seconds.
ROUNDS_MAX = 5


@pytest.fixture(scope="module", params=PEERS)
def peer(request):
    """A peer that takes its turns in an interpreter of its own."""
    pythons = [sys.executable, *filter(None, os.environ.get(PYTHONS, "").split(os.pathsep))]
    for python in pythons:
        if can_import(python, PEERS[request.param], "numpy"):
            with OtherInterpreter(python, "peers_large_values.py", request.param) as other:
                other.name = request.param.capitalize()
                yield other
            return
    pytest.skip(f"no {PEERS[request.param]} in {', '.join(pythons)}: name an interpreter that has it by {PYTHONS}")


@pytest.fixture(scope="module")
def store():
    with headrace.Client(workers=2, store_limit=5 << 30) as client:
        yield client


def test_untouched(peer, store, rounds, record):
    source = store.put(np.ones(ITEMS))
    ours_s, theirs_s = in_turn(
        min(rounds, ROUNDS_MAX),
        lambda: chain(store, untouched, source, check_ends(1.0)),
        lambda: peer.seconds("untouched"),
    )
    record(faster(f"200 MB through {HOPS} pinned tasks that return it, and to the client", peer, ours_s, theirs_s))


def test_put(peer, store, rounds, record):
    array = np.arange(float(ITEMS))
    refs = []

    def ours():
        refs.clear()
        settle(store)
        seconds = timed(lambda: refs.append(store.put(array)))
        assert store.call(ends, refs[0]).result() == (0.0, ITEMS - 1.0)
        return seconds

    ours_s, theirs_s = in_turn(min(rounds, ROUNDS_MAX), ours, lambda: peer.seconds("put"))
    record(faster("put of 200 MB", peer, ours_s, theirs_s))


def test_result(peer, store, rounds, record):
    def ours():
        graph = headrace.Graph()
        node = graph.add(ones, ITEMS)
        run = store.submit(graph)
        assert run.wait()
        start = time.perf_counter()
        array = run.result(node)
        seconds = time.perf_counter() - start
        assert array[0] == array[-1] == 1.0
        return seconds

    ours_s, theirs_s = in_turn(min(rounds, ROUNDS_MAX), ours, lambda: peer.seconds("result"))
    record(faster("a ready result of 200 MB to the client", peer, ours_s, theirs_s))


def faster(question, peer, ours_s, theirs_s):
    """How many times faster ours is, pair by pair."""
    ratios = [theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True)]
    return Figure(
        question=f"{question}, against {peer.name}",
        measured=milliseconds(ours_s),
        reference=f"{peer.name} {milliseconds(theirs_s)}",
        score=statistics.median(ratios),
        unit="×",
        bar=1.0,
        aim=None,
        at_least=True,
        samples=ratios,
    )
