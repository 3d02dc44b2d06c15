"""Runs peers in turn.

In a round each peer, in a fresh process, runs all of its workloads; the next round turns the order around. Rounds are
far apart in time, so what a shared machine does to one of them shows as spread. Ratios are taken within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.bench.engine import CALIBRATION
from headrace.bench.engines import Peer, chosen
from headrace.bench.environments import fresh_logs, install, missing
from headrace.bench.floors import floors_us, primitives_us
from headrace.bench.machine_card import machine_card, yardstick_us
from headrace.bench.plans import Workload, parse
from headrace.bench.processes import Watch
from headrace.bench.results import Cell, PeerRecord, Results
from headrace.bench.schedule import OURS, Schedule
from headrace.bench.scheduler_alone import scheduler_alone
from headrace.bench.session import PeerFailed, Session
from headrace.bench.studies import STUDIES, Item
from headrace.errors import UsageError

_TASKS_FIRST = 16
_GROWTH_MAX = 8
#: How often a peer is started anew in one round, after a workload that it could not run.
_STARTS_MAX = 4
#: A first run that takes so many times what a workload may take is the sample; another one would take too long.
_SLOW = 4
#: What a request may take at the end of a turn.
_PATIENCE_LEAST_S = 25.0
#: What headrace runs because others came to this size only, and its part of the time that a workload may take.
_PAIRS, _PAIRS_SHARE = "pairs", 0.2
_NO_TIME = "not run: this peer's part of the time was used up"


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
    minutes: float | None = None
    """How long the run may take; None if it may take what it takes."""
    is_full: bool = False
    """Whether each study asks the peers that it is meant for, and not all that were chosen."""
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
            "minutes": self.minutes,
            "is_full": self.is_full,
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
    begin = time.monotonic()
    if settings.with_scheduler_alone:
        say("the scheduler alone (cargo bench)")
        results.scheduler_alone = [list(row) for row in scheduler_alone()]
    results.floors = floors_us()
    results.primitives = primitives_us()
    peers = []
    for peer in settings.peers:
        record = results.peers[peer.name] = PeerRecord(peer.kind, peer.fast_path, copies=peer.copies)
        if settings.do_install:
            say(f"{peer.name}: environment")
            record.skipped = install(peer)
        record.skipped = record.skipped or missing(peer)
        if settings.is_full and not any(peer in chosen(STUDIES[name].whose) for name in settings.studies):
            record.skipped = "no study of a full run asks it: name it with --peers"
        if record.skipped:
            say(f"{peer.name}: skipped: {record.skipped}")
        else:
            peers.append(peer)
    folder = fresh_logs(peers)
    minutes = settings.minutes and settings.minutes - (time.monotonic() - begin) / 60
    for number, peer, end in Schedule(peers, settings.rounds, minutes).turns():
        if len(results.yardstick_us) == number:
            results.yardstick_us.append(yardstick_us())
        _Turn(settings, results, peer, number, end, folder, say).take()
        results.took_s = time.monotonic() - begin
        keep(results)
    return results


class _Turn:
    """One peer's turn in one round."""

    def __init__(
        self, settings: Settings, results: Results, peer: Peer, number: int, end: float, folder: Path, say: Say
    ) -> None:
        self.settings, self.results, self.peer, self.folder = settings, results, peer, folder
        self.number, self.end = number, end
        self.record = results.peers[peer.name]
        self._say = say
        #: Series of which this peer has had enough, and why.
        self._enough: dict[tuple[str, str], str] = {}

    def say(self, words: str) -> None:
        """Tell it with the round and the peer."""
        self._say(f"round {self.number + 1}/{self.settings.rounds}  {self.peer.name}: {words}")

    def take(self) -> None:
        """Start the peer once for each number of workers, and run what is to be run."""
        environment: dict[str, str] = {}
        if self.peer.calibrated_by:
            environment = calibration(self.results, self.peer.calibrated_by)
            if not environment:
                reason = f"is told by {self.peer.calibrated_by}, in the same run, how long a task takes"
                self.record.skipped = self.record.skipped or f"{reason}: study airflow"
                return
        todo: dict[int, list[tuple[Item, Cell]]] = {}
        for item, cell in self._agenda():
            todo.setdefault(cell.workers, []).append((item, cell))
        for workers, rest in todo.items():
            for _ in range(_STARTS_MAX):
                if not rest or self.record.skipped:
                    break
                rest = self._session(workers, rest, environment)

    def _agenda(self) -> list[tuple[Item, Cell]]:
        """In the first round what the studies ask for; later what came of it."""
        mine = [cell for cell in self.results.cells if cell.peer == self.peer.name and not cell.failure]
        if self.number:
            return [(_item_of(cell), cell) for cell in mine]
        settings = self.settings
        return [
            (item, Cell(self.peer.name, str(item.workload), item.workers or settings.workers, [name]))
            for name in settings.studies
            if not settings.is_full or self.peer in chosen(STUDIES[name].whose)
            for item in STUDIES[name].items(settings.workloads, settings.tasks, settings.workers)
        ]

    def _session(
        self, workers: int, todo: list[tuple[Item, Cell]], environment: dict[str, str]
    ) -> list[tuple[Item, Cell]]:
        """Run workloads until one fails; gives back those that are left."""
        if self._is_late(todo):
            return []
        try:
            session = Session(self.peer, workers, self.folder, environment)
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
                if self._is_late(todo[position:]):
                    return []
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

    def _is_late(self, todo: list[tuple[Item, Cell]]) -> bool:
        """Whether the turn's time is up. What has never run is noted."""
        if time.monotonic() < self.end:
            return False
        never = [cell for _, cell in todo if not cell.rounds]
        for cell in never:
            cell.failure = _NO_TIME
            self._keep(cell)
        self.say(f"its time is up; {len(never)} of its workloads never ran")
        return True

    def _measure(self, session: Session, item: Item, cell: Cell) -> None:
        """Find the size in the first round, warm up, run, and note."""
        settings = self.settings
        if self.number:
            if time.monotonic() + cell.median_s > self.end:
                return
            if cell.median_s < settings.budget_s:  # slow ones gain nothing by a warm-up
                self._run(session, cell.workload, 1, 0)
            self._sample(session, item, cell)
            return
        series = (cell.studies[0], item.series)
        if reason := self._enough.get(series, ""):
            self.say(f"{cell.workload}: not run: {reason}")
            if item.is_fixed:
                cell.failure = f"not run: {reason}"
                self._keep(cell)
            return
        workload = item.workload if item.is_fixed else self._fitted(session, item)
        cell.workload = str(workload)
        if known := self.results.cell(cell.peer, cell.workload, cell.workers):
            known.studies += [study for study in cell.studies if study not in known.studies]
            if item.keeps_memory and not known.memory and not known.failure:
                self._watched(session, item, known)
        else:
            self._first(session, item, cell)
        ran = known or cell
        if item.series and ran.rounds and (reason := STUDIES[series[0]].enough(item, ran)):
            self._enough[series] = reason

    def _first(self, session: Session, item: Item, cell: Cell) -> None:
        """The first run is watched and warms up; a slow one is the sample, too."""
        answer, used_s = self._watched(session, item, cell)
        if "refused" in answer:
            cell.failure = answer["refused"]
            self._keep(cell)
            self.say(f"{cell.workload}: {cell.failure}")
        elif answer["seconds"][0] > _SLOW * self.settings.budget_s:
            self._note(cell, answer, used_s)
        else:
            self._sample(session, item, cell)

    def _watched(self, session: Session, item: Item, cell: Cell) -> tuple[dict[str, Any], float]:
        """One run while memory is looked at; its answer, and the processor time."""
        before_s, moved = session.family.processor_s(), session.family.moved_bytes()
        with Watch(session.family) as watch:
            answer = self._run(session, cell.workload, 1, 0)
        cell.peak_bytes, cell.moved_bytes = watch.peak_bytes, session.family.moved_bytes() - moved
        if item.keeps_memory:
            cell.memory = watch.samples
        return answer, session.family.processor_s() - before_s

    def _sample(self, session: Session, item: Item, cell: Cell) -> None:
        """Run as often as the budget holds."""
        before_s = session.family.processor_s()
        answer = self._run(session, cell.workload, item.repeats, self.settings.budget_s * item.share)
        self._note(cell, answer, session.family.processor_s() - before_s)

    def _run(self, session: Session, workload: str, repeats: int, budget_s: float) -> dict[str, Any]:
        """Ask for runs, with as much patience as the turn has left."""
        left_s = max(_PATIENCE_LEAST_S, self.end - time.monotonic())
        return session.run(workload, repeats, budget_s, min(self.settings.timeout_s, left_s))

    def _note(self, cell: Cell, answer: dict[str, Any], processor_s: float) -> None:
        """Enter a round."""
        cell.processor_s += processor_s
        cell.tasks, cell.edges = answer["tasks"], answer["edges"]
        cell.rounds.append(answer["seconds"])
        cell.turns.append(self.number)
        for name in ("submit_s", "first_task_s", "hops_us", "back_s"):
            getattr(cell, name).extend(answer.get(name, ()))
        for name, samples in answer["own"].items():
            cell.own.setdefault(name, []).extend(samples)
        self._keep(cell)
        self.say(
            f"{cell.workload}: {cell.by_round_s[-1]:.4g} s, {cell.by_round_s[-1] / cell.tasks * 1e6:.3g} µs a task"
        )

    def _fitted(self, session: Session, item: Item) -> Workload:
        """The largest size that the budget holds: it grows for as long as the next one should still fit."""
        budget_s = self.settings.budget_s
        tasks = min(_TASKS_FIRST, item.tasks_max)
        before = workload = item.workload.sized(tasks)
        while True:
            if known := self.results.cell(self.peer.name, str(workload), session.workers):
                if known.failure:
                    return workload
                seconds = known.median_s
            else:
                answer = self._run(session, str(workload), 3, budget_s / 2)
                if "refused" in answer:
                    return before  # a smaller one that it ran, or this one, so that the reason is told
                seconds = min(answer["seconds"])
            growth = min(_GROWTH_MAX, budget_s / max(seconds, 1e-9))
            if tasks >= item.tasks_max or not growth >= 2:
                return workload
            tasks = min(item.tasks_max, int(tasks * growth))
            before = workload
            workload = workload.sized(tasks)

    def _sizes_of_others(self) -> list[Cell]:
        """What other peers ran at smaller sizes: ratios compare equal graphs."""
        known = {(cell.workload, cell.workers) for cell in self.results.cells if cell.peer == OURS}
        wanted = {}
        for cell in self.results.cells:
            key = (cell.workload, cell.workers)
            if cell.peer != OURS and cell.rounds and key not in known and cell.workers == self.settings.workers:
                wanted[key] = Cell(OURS, cell.workload, cell.workers, [_PAIRS])
        return list(wanted.values())

    def _keep(self, cell: Cell) -> None:
        if not any(cell is known for known in self.results.cells):
            self.results.cells.append(cell)


def calibration(results: Results, name: str) -> dict[str, str]:
    """What a model is told of the system that it models: how long a task of a chain took to begin, and to end."""
    for cell in results.cells:
        if cell.peer == name and cell.own and parse(cell.workload).shape == "chain":
            seconds = [statistics.median(cell.own[phase]) for phase in ("begun_s", "ran_s")]
            return {CALIBRATION: ":".join(f"{value:.4f}" for value in seconds)}
    return {}


def _item_of(cell: Cell) -> Item:
    """The item that runs a cell again."""
    workload = parse(cell.workload)
    repeats = 500 if workload.sizes.tasks == 1 else 20
    share = _PAIRS_SHARE if cell.studies == [_PAIRS] else 1.0
    return Item(workload, workload.sizes.tasks, workers=cell.workers, repeats=repeats, is_fixed=True, share=share)
