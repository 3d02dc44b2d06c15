"""How much faster is `headrace.TopologicalSorter` than `graphlib`'s, with the same interface?"""

import graphlib

import pytest

import headrace
from comparison import take_turns
from figures import times_faster

STEPS = WIDTH = 100


@pytest.mark.quick
def test_topological_sorter(benchmark, rounds, record):
    graph = {
        (step, j): [(step - 1, (j + shift) % WIDTH) for shift in (-1, 0, 1)] if step else []
        for step in range(STEPS)
        for j in range(WIDTH)
    }
    position = {name: number for number, name in enumerate(graph)}

    def check(order):
        assert len(order) == len(graph)
        rank = {name: number for number, name in enumerate(order)}
        assert all(rank[before] < rank[name] for name, needed in graph.items() for before in needed)
        assert sorted(order, key=position.__getitem__) == list(graph)

    turns = take_turns(
        benchmark,
        lambda: drive(headrace.TopologicalSorter(graph)),
        lambda: drive(graphlib.TopologicalSorter(graph)),
        rounds=3 * rounds,
        check=check,
    )
    question = f"TopologicalSorter, stencil {STEPS} × {WIDTH}"
    record(times_faster(question, turns, tasks=STEPS * WIDTH, bar=5, against="graphlib"))


def drive(sorter):
    """The loop of graphlib's documentation; the order in which the nodes became ready."""
    order = []
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        order.extend(ready)
        sorter.done(*ready)
    return order
