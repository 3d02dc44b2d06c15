"""List scheduling, simulated: what a schedule with free and instant dispatch takes.

Each ready task goes, in order, to the worker that is free first; tasks readied by a completion go to the front, as the
kernel does it (K3). Nobody knows durations beforehand.
"""

import heapq
from collections.abc import Hashable, Iterable, Mapping


def makespan_s(tasks: Mapping[Hashable, tuple[Iterable[Hashable], float]], workers: int) -> float:
    """When the last task ends, given the predecessors and the duration of each."""
    missing = {name: len(set(needed)) for name, (needed, _) in tasks.items()}
    successors: dict[Hashable, list[Hashable]] = {name: [] for name in tasks}
    for name, (needed, _) in tasks.items():
        for before in set(needed):
            successors[before].append(name)
    order = {name: number for number, name in enumerate(tasks)}
    front, back = [], [name for name in reversed(tasks) if not missing[name]]  # both are taken from their end
    running: list[tuple[float, int, Hashable]] = []
    now_s = 0.0
    while front or back or running:
        while (front or back) and len(running) < workers:
            name = (front or back).pop()
            heapq.heappush(running, (now_s + tasks[name][1], order[name], name))
        now_s, _, ended = heapq.heappop(running)
        for name in successors[ended]:
            missing[name] -= 1
        readied = [name for name in successors[ended] if not missing[name]]
        front += sorted(readied, key=order.__getitem__, reverse=True)
    return now_s
