"""Runs peers in turn.

In a round each peer, in a fresh process, runs all of its workloads; the next round turns the order around. Rounds are
far apart in time, so what a shared machine does to one of them shows as spread. Ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.bench.engines import Peer
from headrace.bench.environments import fresh_logs, install, missing
from headrace.bench.floors import floors_us
from headrace.bench.machine_card import machine_card, yardstick_us
from headrace.bench.plans import Workload, parse
from headrace.bench.processes import Peak
from headrace.bench.results import Cell, PeerRecord, Results
from headrace.bench.scheduler_alone import scheduler_alone
from headrace.bench.session import PeerFailed, Session
from headrace.bench.studies import STUDIES, Item
from headrace.errors import UsageError

#: The peer that all are compared with. It comes last in the first round, and runs whatever sizes the others came to.
OURS = "headrace"
_TASKS_FIRST = 16
_GROWTH_MAX = 8
#: How often a peer is started anew in one round, after a workload that it could not run.
_STARTS_MAX = 4


@dataclass(frozen=True)
class Settings:
    """What to run."""

    peers: list[Peer]
    workloads: list[Workload]
    studies: list[str]
    rounds: int = 3
    workers: int = 2
    tasks: int = 10_000
    """How large the graphs become, if a peer is fast enough."""
    budget_s: float = 1.0
    """What a workload may take on a peer in one round. Slower peers get smaller graphs, down to 16 tasks."""
    timeout_s: float = 120
    """What one request may take."""
    do_install: bool = False
    with_scheduler_alone: bool = False
    any_build: bool = False
    """Whether a build that is not meant for measuring may be measured."""

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            "studies": self.studies,
            "rounds": self.rounds,
            "workers": self.workers,
            "tasks": self.tasks,
            "budget_s": self.budget_s,
        }


Say = Callable[[str], None]


def run(settings: Settings, say: Say, keep: Callable[[Results], None] = lambda _: None) -> Results:
    """Measure.

    Args:
        settings: what.
        say: is told each step, in a line.
        keep: is given what there is after each peer's turn, so that a run that is interrupted was not for nothing.

    Raises:
        UsageError: this is no release build, and that was not allowed for.
    """
    results = Results(machine_card(), settings.as_json())
    if results.machine["build"] != "release" and not settings.any_build:
        raise UsageError(
            f"this headrace was built with the profile {results.machine['build']!r}; install it with `pip install .`, "
            "or allow for it with --allow-quick-build"
        )
    if settings.with_scheduler_alone:
        say("the scheduler alone (cargo bench)")
        results.scheduler_alone = [list(row) for row in scheduler_alone()]
    results.floors = floors_us()
    peers = []
    for peer in settings.peers:
        record = results.peers[peer.name] = PeerRecord(peer.kind, peer.fast_path)
        if settings.do_install:
            say(f"{peer.name}: environment")
            record.skipped = install(peer)
        record.skipped = record.skipped or missing(peer)
        if record.skipped:
            say(f"{peer.name}: skipped: {record.skipped}")
        else:
            peers.append(peer)
    order = sorted(peers, key=lambda peer: peer.name == OURS)
    folder = fresh_logs(peers)
    for number in range(settings.rounds):
        results.yardstick_us.append(yardstick_us())
        for peer in order if number % 2 == 0 else reversed(order):
            _Turn(settings, results, peer, number, folder, say).take()
            keep(results)
    return results


class _Turn:
    """One peer's turn in one round."""

    def __init__(self, settings: Settings, results: Results, peer: Peer, number: int, folder: Path, say: Say) -> None:
        self.settings, self.results, self.peer, self.folder = settings, results, peer, folder
        self.number = number
        self.record = results.peers[peer.name]
        self._say = say

    def say(self, words: str) -> None:
        """Tell it with the round and the peer."""
        self._say(f"round {self.number + 1}/{self.settings.rounds}  {self.peer.name}: {words}")

    def take(self) -> None:
        """Start the peer once for each number of workers, and run what is to be run."""
        todo: dict[int, list[tuple[Item, Cell]]] = {}
        for item, cell in self._agenda():
            todo.setdefault(cell.workers, []).append((item, cell))
        for workers, rest in todo.items():
            for _ in range(_STARTS_MAX):
                if not rest or self.record.skipped:
                    break
                rest = self._session(workers, rest)

    def _agenda(self) -> list[tuple[Item, Cell]]:
        """In the first round what the studies ask for; later what came of it."""
        mine = [cell for cell in self.results.cells if cell.peer == self.peer.name and not cell.failure]
        if self.number:
            return [(_item_of(cell), cell) for cell in mine]
        settings = self.settings
        return [
            (item, Cell(self.peer.name, str(item.workload), item.workers or settings.workers, [name]))
            for name in settings.studies
            for item in STUDIES[name].items(settings.workloads, settings.tasks, settings.workers)
        ]

    def _session(self, workers: int, todo: list[tuple[Item, Cell]]) -> list[tuple[Item, Cell]]:
        """Run workloads until one fails; gives back those that are left."""
        try:
            session = Session(self.peer, workers, self.folder)
        except PeerFailed as reason:
            self.say(f"cannot be started: {reason}")
            if not self.record.versions:
                self.record.skipped = f"cannot be started: {reason}"
            else:
                for _, cell in todo:
                    cell.failure = f"cannot be started with {workers} workers: {reason}"
                    self._keep(cell)
            return []
        with session:
            if workers == self.settings.workers:
                self.record.start_s.append(session.start_s)
            self.record.versions = session.versions
            self.say(f"started {workers} workers in {session.start_s:.2f} s")
            for position, (item, cell) in enumerate(todo):
                try:
                    self._measure(session, item, cell)
                except PeerFailed as reason:
                    cell.failure = str(reason)
                    self._keep(cell)
                    self.say(f"{cell.workload}: {reason}")
                    return todo[position + 1 :]
            if self.peer.name == OURS and self.number == 0 and workers == self.settings.workers:
                for cell in self._sizes_of_others():
                    self._measure(session, _item_of(cell), cell)
        return []

    def _measure(self, session: Session, item: Item, cell: Cell) -> None:
        """Warm up, find the size in the first round, run, and note."""
        settings, workload = self.settings, item.workload
        if self.number == 0:
            if not item.is_fixed:
                workload = self._fitted(session, item)
            cell.workload = str(workload)
            if "size" in cell.studies and workload.sizes.tasks < item.tasks_max:
                return  # a smaller size of the same family stands for it already
            if known := self.results.cell(cell.peer, cell.workload, cell.workers):
                known.studies += [study for study in cell.studies if study not in known.studies]
                return
        text = str(workload)
        if self.number == 0:  # the warm-up is watched, which slows it
            with Peak(session.family) as peak:
                warm = session.run(text, 1, 0, settings.timeout_s)
            cell.peak_bytes = peak.bytes
            if "refused" in warm:
                cell.failure = warm["refused"]
                self._keep(cell)
                self.say(f"{text}: {cell.failure}")
                return
        elif cell.median_s < settings.budget_s:  # slow ones gain nothing by a warm-up
            session.run(text, 1, 0, settings.timeout_s)
        before_s = session.family.processor_s()
        answer = session.run(text, item.repeats, settings.budget_s, settings.timeout_s)
        cell.processor_s += session.family.processor_s() - before_s
        cell.tasks, cell.edges = answer["tasks"], answer["edges"]
        cell.rounds.append(answer["seconds"])
        cell.submit_s += answer["submit_s"]
        cell.first_task_s += answer.get("first_task_s", [])
        cell.hops_us += answer.get("hops_us", [])
        self._keep(cell)
        self.say(f"{text}: {cell.by_round_s[-1]:.4g} s, {cell.by_round_s[-1] / cell.tasks * 1e6:.3g} µs a task")

    def _fitted(self, session: Session, item: Item) -> Workload:
        """The largest size that the budget holds: it grows for as long as the next one should still fit."""
        budget_s = self.settings.budget_s
        tasks = min(_TASKS_FIRST, item.tasks_max)
        workload = item.workload.sized(tasks)
        while True:
            answer = session.run(str(workload), 3, budget_s / 2, self.settings.timeout_s)
            if "refused" in answer:
                return workload
            seconds = min(answer["seconds"])
            growth = min(_GROWTH_MAX, budget_s / max(seconds, 1e-9))
            if tasks >= item.tasks_max or growth < 2:
                return workload
            tasks = min(item.tasks_max, int(tasks * growth))
            workload = workload.sized(tasks)

    def _sizes_of_others(self) -> list[Cell]:
        """What other peers ran at smaller sizes: ratios compare equal graphs."""
        known = {(cell.workload, cell.workers) for cell in self.results.cells if cell.peer == OURS}
        wanted = {}
        for cell in self.results.cells:
            key = (cell.workload, cell.workers)
            if cell.peer != OURS and cell.rounds and key not in known and cell.workers == self.settings.workers:
                wanted[key] = Cell(OURS, cell.workload, cell.workers, ["pairs"])
        return list(wanted.values())

    def _keep(self, cell: Cell) -> None:
        if not any(cell is known for known in self.results.cells):
            self.results.cells.append(cell)


def _item_of(cell: Cell) -> Item:
    """The item that runs a cell again."""
    workload = parse(cell.workload)
    repeats = 500 if workload.sizes.tasks == 1 else 20
    return Item(workload, workload.sizes.tasks, workers=cell.workers, repeats=repeats, is_fixed=True)
