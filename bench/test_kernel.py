"""What does the kernel alone need to resolve a graph, from submit to the last freed slot?

`cargo bench` measures (rust/kernel/benches/resolve.rs); this reads its table and holds it against the bars.
"""

import re
import subprocess

import pytest

from figures import at_most
from repository import REPOSITORY

NS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
ROW = re.compile(r"^(?P<name>\S.*?) +(?P<tasks>\d+) +(?P<edges>\d+) +(?P<fastest>\S+) +(?P<median>\S+) ")
SMALL, LARGE = 10_000, 1_000_000


@pytest.fixture(scope="module")
def table():
    """`(name, tasks, edges, median in ns, fastest in words)` of each graph."""
    command = ["cargo", "bench", "--locked", "--quiet", "--package", "headrace-kernel", "--bench", "resolve"]
    output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    rows = [match for line in output.splitlines()[1:] if (match := ROW.match(line))]
    assert rows, output
    return [
        (row["name"], int(row["tasks"]), int(row["edges"]), nanoseconds(row["median"]), f"fastest {row['fastest']}")
        for row in rows
    ]


def test_kernel_resolves_small_graphs(table, record):
    for name, tasks, edges, median_ns, fastest in table:
        if tasks <= SMALL and edges <= 3 * tasks:
            record(at_most(f"kernel: {name}, {tasks:,} tasks", [median_ns / 1e6], "ms", bar=1, detail=fastest))


def test_kernel_resolves_dense_graphs(table, record):
    for name, tasks, edges, median_ns, fastest in table:
        if tasks <= SMALL and edges > 3 * tasks:
            allowed_ns = 20 * edges + 50 * tasks
            detail = f"{fastest}; allowed: 20 ns an edge and 50 ns a task"
            allowed = f"allowed {allowed_ns / 1e6:.3g} ms"
            measured = f"{median_ns / 1e6:.3g} ms"
            figure = at_most(
                f"kernel: {name}, {tasks:,} tasks, against what is allowed",
                [median_ns / allowed_ns],
                "×",
                bar=1,
                measured=measured,
                reference=allowed,
                detail=detail,
            )
            record(figure)


def test_kernel_resolves_large_graphs(table, record):
    for name, tasks, edges, median_ns, fastest in table:
        if tasks >= LARGE * 0.9:
            record(
                at_most(
                    f"kernel: {name}, {tasks:,} tasks",
                    [median_ns / (tasks + edges)],
                    "ns per task and edge",
                    bar=60,
                    detail=fastest,
                )
            )


def nanoseconds(text):
    """Read a duration as Rust prints it."""
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", text).groups()
    return float(number) * NS[unit]
