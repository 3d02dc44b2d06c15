"""What a run has measured, as an object and as JSON. Samples are kept, so that medians can be taken anew."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import UsageError

FORMAT = 1
#: Less processor time than this is not told: the system counts it in steps of 10 ms.
_PROCESSOR_S_LEAST = 0.1


@dataclass
class Cell:
    """One workload on one peer with so many workers."""

    peer: str
    workload: str
    workers: int
    studies: list[str]
    tasks: int = 0
    edges: int = 0
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of each run, by round."""
    turns: list[int] = field(default_factory=list)
    """The number of each of these rounds; not all peers find time in all of them."""
    submit_s: list[float] = field(default_factory=list)
    first_task_s: list[float] = field(default_factory=list)
    hops_us: list[float] = field(default_factory=list)
    """From the end of a task's last input to its own beginning."""
    back_s: list[float] = field(default_factory=list)
    """From the end of the task that made a large value until the client has it."""
    own: dict[str, list[float]] = field(default_factory=dict)
    """What the system's own records say of tasks: `gap_s` after the last input, of that `found_s` until it was queued,
    `begun_s` until it began; and how long it `ran_s`."""
    processor_s: float = 0
    """Of all processes, over all runs."""
    peak_bytes: int = 0
    """The most memory of all processes together in one more run."""
    memory: list[list[float]] = field(default_factory=list)
    """Seconds and bytes of that run, where a study asks for them."""
    moved_bytes: int = -1
    """Bytes that went through files, pipes and the loopback in that run; -1 where nobody looked."""
    failure: str = ""

    @property
    def seconds(self) -> list[float]:
        """Each run."""
        return [seconds for one in self.rounds for seconds in one]

    @property
    def by_round_s(self) -> list[float]:
        """The median run of each round."""
        return [statistics.median(one) for one in self.rounds if one]

    @property
    def median_s(self) -> float:
        """The median over the rounds; nan if nothing was measured."""
        return statistics.median(self.by_round_s) if self.by_round_s else math.nan

    @property
    def task_us(self) -> float:
        """Microseconds a task."""
        return self.median_s / self.tasks * 1e6 if self.tasks else math.nan

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles of the runs, as a part of the median."""
        return spread(self.seconds)

    @property
    def processor_us(self) -> float:
        """Processor time a task in microseconds; nan if too little was used to tell."""
        runs = len(self.seconds) * self.tasks
        return self.processor_s / runs * 1e6 if runs and self.processor_s >= _PROCESSOR_S_LEAST else math.nan


@dataclass
class PeerRecord:
    """What became of a peer."""

    kind: str
    fast_path: str
    versions: dict[str, str] = field(default_factory=dict)
    start_s: list[float] = field(default_factory=list)
    """Cold start: from the request in a fresh process to a first task's result, once a session."""
    copies: str = ""
    """How often a large value is copied on its way from task to task, where that is known."""
    skipped: str = ""
    """Why there is nothing of it, if there is nothing."""


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, str]
    settings: dict[str, Any]
    peers: dict[str, PeerRecord] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    yardstick_us: list[float] = field(default_factory=list)
    """A fixed piece of pure Python at the beginning of each round: how fast the machine was then."""
    floors: dict[str, float] = field(default_factory=dict)
    """What the machine itself charges, in microseconds, by name."""
    scheduler_alone: list[list[Any]] = field(default_factory=list)
    """Harness, graph, tasks and nanoseconds a task of the broker with workers that cost nothing, and no Python."""
    primitives: dict[str, float] = field(default_factory=dict)
    """More of what the machine and Python charge, in microseconds, by name; a table, and no line in a plot."""
    took_s: float = 0
    """How long the run took."""

    def cell(self, peer: str, workload: str, workers: int) -> Cell | None:
        """The cell of this name, if it was measured."""
        for cell in self.cells:
            if (cell.peer, cell.workload, cell.workers) == (peer, workload, workers):
                return cell
        return None

    def of_study(self, study: str) -> list[Cell]:
        """Measured cells of a study, in the order in which peers were asked for."""
        order = {peer: place for place, peer in enumerate(self.peers)}
        found = [cell for cell in self.cells if study in cell.studies and cell.rounds]
        return sorted(found, key=lambda cell: order.get(cell.peer, len(order)))

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT} | asdict(self), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Results:
    """Read what `save` has written.

    Raises:
        UsageError: it is something else.
    """
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise UsageError(f"{path} was written by another version of headrace bench")
        content["peers"] = {name: PeerRecord(**record) for name, record in content["peers"].items()}
        content["cells"] = [Cell(**cell) for cell in content["cells"]]
        return Results(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} holds no results of headrace bench: {error}") from None


def percentile(samples: Iterable[float], share: float) -> float:
    """The sample below which that share of them lies; nan if there are none."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def spread(samples: list[float]) -> float:
    """Half of what lies between the quartiles, as a part of the median; nan for fewer than two."""
    if len(samples) < 2:
        return math.nan
    first, middle, third = statistics.quantiles(samples, n=4, method="inclusive")
    return (third - first) / 2 / middle
