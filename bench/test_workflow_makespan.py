"""How near does the makespan of a real workflow come to list scheduling with free dispatch?

Each trace is scaled so that the larger of its two lower bounds (critical path; work divided by workers) is 2 s.
"""

import os
from pathlib import Path

import pytest

import headrace
from figures import at_most
from headrace.cli.workflow import critical_path_s, sequentially, work_s
from headrace.formats.wfformat import read
from list_scheduling import makespan_s
from repository import REPOSITORY

DEFAULT = REPOSITORY.parent / "shared" / "data" / "wfinstances"
FOLDER = Path(os.environ.get("HEADRACE_WFINSTANCES", DEFAULT))
TRACES = sorted(FOLDER.glob("*.json.gz"))
WORKERS = 2
LOWER_BOUND_S = 2.0


@pytest.mark.skipif(not TRACES, reason=f"no traces in {FOLDER}; name their folder in HEADRACE_WFINSTANCES")
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split("-")[0])
def test_makespan_of_a_workflow(client, record, path):
    flow = read(path)
    path_s, share_s = critical_path_s(flow), work_s(flow) / WORKERS
    scale = LOWER_BOUND_S / max(path_s, share_s)
    graph = headrace.Graph.from_wfformat(path, time_scale=scale)
    run = client.submit(graph, keep=list(flow))
    assert run.wait()
    assert run.results() == list(sequentially(flow).values())
    elapsed_s = run.statistics().elapsed_s
    ideal_s = makespan_s({name: (parents, seconds * scale) for name, (parents, seconds) in flow.items()}, WORKERS)
    figure = at_most(
        f"workflow {path.name.split('-')[0]}, {len(flow):,} tasks, against list scheduling",
        [elapsed_s / ideal_s],
        "×",
        bar=1.10,
        measured=f"{elapsed_s:.3f} s",
        reference=f"list scheduling {ideal_s:.3f} s",
        detail=f"{elapsed_s / LOWER_BOUND_S:.3f} times the lower bound of {LOWER_BOUND_S:g} s",
    )
    record(figure)
