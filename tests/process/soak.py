"""Tasks of a millisecond for minutes, while one random worker is killed each second: nothing is lost, nothing grows.

    python tests/process/soak.py --minutes 10 --kill-every 1

What tasks did is counted outside: each appends a record with its number, attempt and process to a file. Victims are
found there, too, so only processes that have run something are killed. At the end every task must have run at least
once, and every result must have come to the client exactly once, with the right value. The broker is in this process;
its memory and descriptors are sampled each second, and their slopes are taken over the last two thirds of the time.

Why none may be lost: a death counts for the one task that ran, and the third such death of a task would fail it. After
a death its task is leased again before any other, and takes a millisecond. So it has long ended when the next worker is
killed, as long as that is longer than a worker's start; and no task can meet three of the kills.
"""

import argparse
import collections
import json
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import headrace as hr

#: Number of the task, attempt, process.
RECORD = struct.Struct("<III")
TASK_S = 0.001
#: Tasks of a run: those that stand alone, and pairs of which the second takes the first's result.
ALONE, PAIRS = 300, 50
CALLS = 20
RUNS_AHEAD = 3

_log = None


def task(path, number, before=0):
    """Append a record, take a millisecond, and return what follows from the number and the input."""
    global _log
    if _log is None:
        _log = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(_log, RECORD.pack(number, hr.current().attempt, os.getpid()))
    time.sleep(TASK_S)
    return value_of(number, before)


def value_of(number, before=0):
    return (number * 2_654_435_761 + before) % (1 << 61)


@dataclass
class Report:
    """What the soak found."""

    seconds: float = 0.0
    tasks: int = 0
    kills: int = 0
    #: By the broker's own count, for comparison.
    deaths: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    #: Tasks that never ran, and tasks that ran more than once.
    without_effect: int = 0
    repeated: int = 0
    #: The longest time in which no result came.
    longest_gap_s: float = 0.0
    rss_mib: float = 0.0
    rss_kib_per_minute: float = 0.0
    descriptors: int = 0
    descriptors_per_minute: float = 0.0
    left_processes: int = 0
    errors: list[str] = field(default_factory=list)

    def is_clean(self):
        return not (self.lost or self.duplicated or self.wrong or self.without_effect or self.left_processes)


class Soak:
    """One soak, in this process."""

    def __init__(self, seconds, kill_every_s, workers, seed, path):
        self._seconds = seconds
        self._kill_every_s = kill_every_s
        self._workers = workers
        self._dice = random.Random(seed)
        self._path = str(path)
        self._report = Report()
        self._samples = []
        self._over = threading.Event()
        self._last_result_s = time.monotonic()
        self._told = collections.Counter()

    def run(self):
        Path(self._path).touch()
        start = time.monotonic()
        with hr.Client(workers=self._workers) as client:
            threads = [threading.Thread(target=target) for target in (self._kill, self._sample)]
            for thread in threads:
                thread.start()
            try:
                self._work(client, start + self._seconds)
            finally:
                self._over.set()
                for thread in threads:
                    thread.join()
            self._report.deaths = client.statistics().worker_deaths
        self._report.seconds = time.monotonic() - start
        self._count_effects()
        self._judge_samples()
        self._report.left_processes = len(children())
        return self._report

    # -- results -----------------------------------------------------------------------------------------------------

    def _work(self, client, until_s):
        """Keep some runs ahead, and read them one after another."""
        ahead = collections.deque()
        while time.monotonic() < until_s or ahead:
            while len(ahead) < RUNS_AHEAD and time.monotonic() < until_s:
                ahead.append(self._submit(client))
            if ahead:
                self._read(*ahead.popleft())

    def _submit(self, client):
        numbers = iter(range(self._report.tasks, 1 << 40))
        graph, expected = hr.Graph(), {}
        for _ in range(ALONE):
            number = next(numbers)
            expected[graph.add(task, self._path, number)] = value_of(number)
        for _ in range(PAIRS):
            one, two = next(numbers), next(numbers)
            first = graph.add(task, self._path, one)
            expected[graph.add(task, self._path, two, first)] = value_of(two, value_of(one))
        run = client.submit(graph, keep=list(expected))
        futures = {}
        for _ in range(CALLS):
            number = next(numbers)
            futures[client.call(task, self._path, number)] = number
        for future, number in futures.items():
            future.add_done_callback(lambda _, number=number: self._told.update([number]))
        self._report.tasks = next(numbers)
        return run, expected, futures

    def _read(self, run, expected, futures):
        report, missing = self._report, dict(expected)
        for node, value in run.as_completed(errors="return", release=True):
            self._note_result()
            if node not in missing:
                report.duplicated += 1
            self._compare(node.key, value, missing.pop(node, expected[node]))
        report.lost += len(missing)
        for future, number in futures.items():
            error = future.exception()
            self._note_result()
            self._compare(f"call {number}", error or future.result(), value_of(number))
        run.release()
        # Callbacks are called on a thread of their own, soon.
        deadline_s = time.monotonic() + 30
        while not all(self._told[number] for number in futures.values()) and time.monotonic() < deadline_s:
            time.sleep(0.001)
        counts = [self._told.pop(number, 0) for number in futures.values()]
        report.lost += counts.count(0)
        report.duplicated += sum(count > 1 for count in counts) + len(self._told.keys() - self._ahead(futures))

    def _ahead(self, futures):
        """Numbers of calls that are not read yet."""
        return set(range(max(futures.values()) + 1, self._report.tasks))

    def _note_result(self):
        now_s = time.monotonic()
        self._report.longest_gap_s = max(self._report.longest_gap_s, now_s - self._last_result_s)
        self._last_result_s = now_s

    def _compare(self, name, value, expected):
        if isinstance(value, BaseException):
            self._report.lost += 1
            self._report.errors.append(f"{name}: {type(value).__name__}: {value}"[:500])
        elif value != expected:
            self._report.wrong += 1
            self._report.errors.append(f"{name}: {value} instead of {expected}")

    # -- faults and figures --------------------------------------------------------------------------------------------

    def _kill(self):
        while not self._over.wait(self._kill_every_s):
            victims = sorted(self._recent_processes() & children())
            if victims:
                os.kill(self._dice.choice(victims), signal.SIGKILL)
                self._report.kills += 1

    def _recent_processes(self):
        """Those that wrote the last records."""
        with open(self._path, "rb") as log:
            whole = log.seek(0, os.SEEK_END) // RECORD.size
            log.seek(max(0, whole - 2_000) * RECORD.size)
            tail = log.read()
        return {pid for _, _, pid in RECORD.iter_unpack(tail[: len(tail) // RECORD.size * RECORD.size])}

    def _sample(self):
        start_s = time.monotonic()
        while not self._over.wait(1.0):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            descriptors = len(os.listdir("/proc/self/fd"))
            self._samples.append((time.monotonic() - start_s, pages * os.sysconf("SC_PAGESIZE"), descriptors))

    def _judge_samples(self):
        late = self._samples[len(self._samples) // 3 :]
        times, bytes_, descriptors = zip(*late, strict=True) if len(late) > 2 else ((0, 1, 2), (0, 0, 0), (0, 0, 0))
        self._report.rss_mib = bytes_[-1] / (1 << 20)
        self._report.rss_kib_per_minute = 60 * slope(times, bytes_) / 1024
        self._report.descriptors = descriptors[-1]
        self._report.descriptors_per_minute = 60 * slope(times, descriptors)

    def _count_effects(self):
        counts = bytearray(self._report.tasks)
        data = Path(self._path).read_bytes()
        assert len(data) % RECORD.size == 0, "a record is torn"
        for number, _, _ in RECORD.iter_unpack(data):
            counts[number] = min(counts[number] + 1, 255)
        self._report.without_effect = counts.count(0)
        self._report.repeated = len(counts) - counts.count(0) - counts.count(1)


def slope(xs, ys):
    """Least squares."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    across = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / across if across else 0.0


def children():
    """Processes that this one has started."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            found |= set(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
        except OSError:
            continue  # that thread has ended
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "effects"
        report = Soak(60 * options.minutes, options.kill_every, options.workers, options.seed, path).run()
    print(json.dumps(asdict(report), indent=2))
    sys.exit(0 if report.is_clean() else 1)


if __name__ == "__main__":
    # Under its own name, so that workers import the tasks, and find their file where it is.
    import soak

    soak.main()
