"""The benchmark's own parts: plans and their answers, statistics, what a comparison calls noise, the page."""

import dataclasses
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.bench import (
    airflow_tables,
    analysis,
    bodies,
    compare,
    dask_graphs,
    digest,
    figures,
    page,
    summary,
    value_tables,
)
from headrace.bench.dask_graphs import GRAPHS
from headrace.bench.engines import PEERS, chosen
from headrace.bench.environments import missing
from headrace.bench.plans import Plan, WrongAnswerError, parse
from headrace.bench.processes import Family, Watch
from headrace.bench.results import Cell, PeerRecord, Results, load
from headrace.bench.runner import Settings, calibration
from headrace.bench.schedule import Schedule
from headrace.bench.shapes import SHAPES, Sizes
from headrace.bench.studies import STUDIES, WORKLOADS
from headrace.errors import UsageError


def evaluate(plan):
    """Run a plan here, one task after the other."""
    values = []
    for _number, constants, needed in plan.calls():
        values.append(plan.function(*constants, *[values[before] for before in needed]))
    return [values[number] for number in plan.kept]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tasks", [1, 2, 3, 17, 200])
def test_shapes_are_graphs_in_order_and_always_alike(shape, tasks):
    needed = SHAPES[shape](Sizes(tasks=tasks))
    assert all(0 <= before < number for number, row in enumerate(needed) for before in row)
    assert all(len(set(row)) == len(row) for row in needed)
    assert needed == SHAPES[shape](Sizes(tasks=tasks))
    assert len(needed) <= max(tasks, 3)
    assert len(needed) >= tasks / 2 or shape == "put"


def test_stencil_needs_three_neighbours_and_fewer_at_its_ends():
    needed = SHAPES["stencil_1d"](Sizes(tasks=12, width=4))
    assert needed == [(), (), (), (), (0, 1), (0, 1, 2), (1, 2, 3), (2, 3), (4, 5), (4, 5, 6), (5, 6, 7), (6, 7)]


def test_degrees_of_the_random_graph_have_a_heavy_tail():
    needed = SHAPES["layered"](Sizes(tasks=10_000))
    readers = [0] * len(needed)
    for row in needed:
        for before in row:
            readers[before] += 1
    assert max(readers) > 20 * sorted(readers)[len(readers) // 2]


@pytest.mark.parametrize("body", ["noop", "spin:us=1", "sleep:us=1", "memory:kib=4", "stamp"])
def test_every_body_gives_the_number_that_proves_its_inputs(body):
    name, _, amount = body.partition(":")
    plan = Plan(parse(f"stencil_1d:tasks=30:body={name}" + (f":{amount}" if amount else "")))
    plan.check(evaluate(plan))


def test_payloads_carry_their_number():
    pytest.importorskip("numpy")
    plan = Plan(parse("chain:tasks=3:payload=10000"))
    (result,) = evaluate(plan)
    assert result.nbytes == 10_000
    plan.check([result])


def test_payloads_say_how_long_they_were_on_the_way():
    np = pytest.importorskip("numpy")
    plan = Plan(parse("chain:tasks=2:payload=100000"))
    first = plan.function(*plan.constants(0))
    second = plan.function(*plan.constants(1), first)
    assert np.all(second[bodies.HEADER_BYTES :] == 1), "every page is written"
    _, _, end_ns, inputs_ns = bodies.header_of(first)
    _, begin_ns, _, known_ns = bodies.header_of(second)
    assert (inputs_ns, known_ns) == (0, end_ns)
    assert begin_ns >= end_ns


def test_what_is_handed_on_untouched_holds_the_number_of_its_maker():
    pytest.importorskip("numpy")
    plan = Plan(parse("chain:tasks=4:body=untouched:payload=5000"))
    (result,) = evaluate(plan)
    plan.check([result])
    assert bodies.value_of(result) == 0


def test_a_wrong_answer_is_noticed():
    plan = Plan(parse("chain:tasks=5"))
    right = evaluate(plan)
    plan.check(right)
    with pytest.raises(WrongAnswerError, match="task 4 gave"):
        plan.check([right[0] ^ 1])
    with pytest.raises(WrongAnswerError, match="0 results instead of 1"):
        plan.check([])


def test_inputs_in_another_order_are_wrong():
    assert bodies.noop(3, 1, 2) != bodies.noop(3, 2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "chain:tasks=7",
        "chain:tasks=3:body=untouched:payload=9:pin=1",
        "put:payload=1000000000",
        "spread:tasks=40:radix=3:seed=9",
        "fft:tasks=64:body=spin:us=10",
        "tree:tasks=9:payload=100",
    ],
)
def test_a_workload_is_read_as_it_is_written(text):
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ring", "no workload 'ring'; there are independent"),
        ("chain:tasks", "'tasks' is no key=value"),
        ("chain:tasks=many", "tasks takes a number, not 'many'"),
        ("chain:us=3", "no setting 'us'; there are tasks"),
        ("chain:body=dance", "no body 'dance'; there are noop"),
        ("chain:tasks=0", "at least 1"),
        ("wfformat:scale=1", "wfformat:file=PATH"),
    ],
)
def test_what_cannot_be_read_is_said(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_recorded_workflow_is_a_plan(tmp_path):
    path = tmp_path / "flow.json"
    path.write_text(
        '{"schemaVersion": "1.5", "workflow": {"specification": {"tasks": ['
        '{"id": "b", "parents": ["a"]}, {"id": "a", "parents": []}]}, '
        '"execution": {"tasks": [{"id": "a", "runtimeInSeconds": 2}]}}}'
    )
    plan = Plan(parse(f"wfformat:file={path}:scale=0.001"))
    assert plan.predecessors == [(), (0,)]
    assert plan.constants(0) == (0, 2_000)
    plan.check(evaluate(plan))


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_of_dask_are_plans(graph):
    pytest.importorskip("dask.array")
    if graph == "dataframe":
        pytest.importorskip("dask.dataframe")
    plan = Plan(parse(f"dask:graph={graph}:tasks=100"))
    assert 30 < len(plan) < 300
    results = evaluate(plan)
    plan.check(results)
    with pytest.raises(WrongAnswerError):
        plan.check([None] * len(results))


def test_equal_frames_have_one_digest_wherever_they_come_from():
    pd = pytest.importorskip("pandas")
    series = pd.Series(range(7), index=pd.Index([f"name {n % 3}" for n in range(7)], name="name"), name="x")
    assert dask_graphs.digest(series) == dask_graphs.digest(pickle.loads(pickle.dumps(series)))
    assert dask_graphs.digest(series) != dask_graphs.digest(series + 1)


def test_peers_are_chosen_by_name_and_by_kind():
    assert [peer.name for peer in chosen("pool, headrace")] == ["pool", "headrace"]
    assert {peer.kind for peer in chosen("library")} == {"library"}
    assert len(chosen("all")) == len(PEERS)
    with pytest.raises(UsageError, match="no peer 'spark'"):
        chosen("spark")


def test_what_a_peer_lacks_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADRACE_BENCH_HOME", str(tmp_path))
    assert missing(PEERS["headrace"]) == ""
    assert "--install" in missing(PEERS["ray"])
    other = dataclasses.replace(PEERS["pool"], programs=("no-such-program (a-package)",))
    assert missing(other) == "needs the program no-such-program on PATH (Debian package a-package)"


def test_the_same_speed_with_noise_is_no_change_and_a_fifth_is_one():
    draw = random.Random(3)

    def run_of(task_us):
        rounds = [[task_us * draw.gauss(1, 0.04) * 1e-3 for _ in range(7)] for _ in range(5)]
        return run_with([Cell("headrace", "chain:tasks=1000", 2, ["ladder"], tasks=1000, rounds=rounds)])

    def verdict(before_us, after_us):
        (change,) = compare.compare(run_of(before_us), run_of(after_us))
        return change.verdict

    assert [verdict(10, 10) for _ in range(5)] == ["noise"] * 5
    assert verdict(10, 12) == "slower"
    assert verdict(10, 8) == "faster"


def test_a_slower_machine_is_taken_out():
    before = run_with([Cell("pool", "chain:tasks=10", 2, ["ladder"], tasks=10, rounds=[[1.0, 1.01]] * 3)])
    after = run_with([Cell("pool", "chain:tasks=10", 2, ["ladder"], tasks=10, rounds=[[2.0, 2.02]] * 3)])
    after.yardstick_us = [2 * value for value in before.yardstick_us]
    (change,) = compare.compare(before, after)
    assert change.verdict == "noise"
    assert "2.00 times as long" in compare.as_text(before, after)


def test_two_rounds_are_too_few_to_tell():
    cell = Cell("pool", "chain:tasks=10", 2, ["ladder"], tasks=10, rounds=[[1.0]] * 2)
    (change,) = compare.compare(run_with([cell]), run_with([cell]))
    assert change.verdict == "unknown"


def test_metg_is_where_half_of_the_time_is_left():
    curve = analysis.Curve("x", [(1.0, 0.05), (10.0, 0.3), (100.0, 0.7), (1000.0, 0.99)])
    assert 10 < analysis.metg_us(curve) < 100
    assert analysis.metg_us(curve) == pytest.approx(10**1.5)
    assert analysis.metg_us(analysis.Curve("x", [(1.0, 0.9), (10.0, 0.95)])) == 1.0
    assert analysis.metg_us(analysis.Curve("x", [(10.0, 0.1)])) != analysis.metg_us(analysis.Curve("x", [(10.0, 0.1)]))


def test_losses_come_first_and_skipped_peers_are_told(tmp_path):
    rounds = [[1e-3, 1.1e-3]] * 3
    cells = [
        Cell("headrace", "chain:tasks=100", 2, ["ladder"], tasks=100, rounds=rounds),
        Cell("pool", "chain:tasks=100", 2, ["ladder"], tasks=100, rounds=[[2e-3]] * 3),
        Cell("dask-sync", "chain:tasks=100", 2, ["ladder"], tasks=100, rounds=[[5e-4]] * 3),
        Cell("dask-sync", "tree:tasks=100", 2, ["ladder"], failure="no answer within 3 s"),
    ]
    results = run_with(cells)
    results.peers["ray"] = PeerRecord("cluster", "tasks", skipped="needs <wheels>")
    first, *rest = summary.tables(results)
    assert [(row[0], row[-2], row[-1]) for row in first.rows] == [("dask-sync", "slower", "not explained yet")]
    told = next(table for table in rest if table.title == "Skipped")
    assert told.rows == [("ray", "all", "needs <wheels>"), ("dask-sync", "tree:tasks=100", "no answer within 3 s")]
    text = page.page(results)
    assert "needs &lt;wheels&gt;" in text
    assert text.index("Where headrace does not win") < text.index("<svg")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "it needs nothing from elsewhere"
    results.save(tmp_path / "results.json")
    assert load(tmp_path / "results.json") == results


def test_other_files_are_no_results(tmp_path):
    path = tmp_path / "x.json"
    for text in ("", "[]", '{"format": 1}', '{"format": 0}'):
        path.write_text(text)
        with pytest.raises(UsageError):
            load(path)


@pytest.mark.parametrize("study", STUDIES)
def test_studies_ask_for_workloads_that_exist(study):
    settings = Settings(chosen("pool"), [parse(name) for name in WORKLOADS], [study])
    items = STUDIES[study].items(settings.workloads, settings.tasks, settings.workers)
    assert items
    assert all(parse(str(item.workload.sized(item.tasks_max))) for item in items)


@pytest.mark.parametrize("study", STUDIES)
def test_a_full_run_asks_peers_that_exist(study):
    names = {peer.name for peer in chosen(STUDIES[study].whose)}
    assert "headrace" in names


def test_of_a_series_nothing_is_run_that_tells_nothing():
    def enough(study, text, task_us, tasks):
        (item,) = [item for item in STUDIES[study].items([], 10_000, 2) if str(item.workload) == text]
        cell = Cell("pool", text, 2, [study], tasks=tasks, rounds=[[task_us * tasks / 1e6]])
        return STUDIES[study].enough(item, cell)

    assert enough("payload", "chain:tasks=2:payload=16777216", 10_000, 2) == ""
    assert "200,000,000 bytes" in enough("payload", "chain:tasks=2:payload=16777216", 1e6, 2)
    assert enough("size", "independent:tasks=10000", 1, 10_000) == ""
    assert "fill its time" in enough("size", "independent:tasks=10000", 1, 1_000)


def test_slow_peers_have_one_turn_and_headrace_the_last_of_the_first_round():
    turns = list(Schedule(chosen("headrace,pool,prefect"), 2, None).turns())
    names = [(number, peer.name) for number, peer, _ in turns]
    assert names == [(0, "pool"), (0, "prefect"), (0, "headrace"), (1, "headrace"), (1, "pool")]


def test_a_run_of_given_length_divides_its_time(monkeypatch):
    now = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ends = []
    for _, peer, end in Schedule(chosen("headrace,pool,dask-sync,airflow"), 3, 10).turns():
        ends.append(end - now)
        if peer.name != "headrace":
            now = end  # everybody takes all that it may
    assert all(0 < end <= 750 for end in ends)
    assert now <= 1_600 + 1e-6, "and nobody more than there is"


def test_shared_memory_counts_though_nobody_has_mapped_it():
    script = (
        "import os; file = os.memfd_create('x'); os.ftruncate(file, 64 << 20); "
        "[os.write(file, bytes(1 << 20)) for _ in range(64)]; print(flush=True); input()"
    )
    family = None
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        family = Family("none", child.pid)
        family._known[child.pid] = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        child.stdout.readline()
        with Watch(family) as watch:
            pass
        child.communicate(b"\n")
    assert watch.peak_bytes > 64 << 20


def test_the_model_is_told_what_a_chain_of_airflow_took():
    own = {"begun_s": [0.5, 0.7, 0.6], "ran_s": [0.2]}
    chain = Cell("airflow", "chain:tasks=16", 2, ["airflow"], tasks=16, rounds=[[9.0]], own=own)
    results = run_with([chain])
    assert calibration(results, "airflow") == {"HEADRACE_BENCH_CALIBRATION": "0.6000:0.2000"}
    assert calibration(results, "pool") == {}


def test_the_report_says_how_far_the_model_is_off():
    def cell(peer, seconds):
        return Cell(peer, "tree:tasks=16", 2, ["airflow"], tasks=15, rounds=[[seconds]], own={"ran_s": [0.1]})

    results = run_with([cell("airflow", 10.0), cell("airflow-style-calibrated", 9.0), cell("headrace", 0.001)])
    totals, phases = airflow_tables.airflow_tables(results)
    assert ("airflow-style-calibrated against airflow", "-10%") in totals.rows
    assert ("airflow", "tree", "–", "–", "–", "100") in phases.rows


def test_ratios_are_of_the_same_round():
    ours = Cell("headrace", "chain:tasks=9", 2, ["ladder"], tasks=9, rounds=[[1.0], [2.0], [4.0]], turns=[0, 1, 2])
    theirs = Cell("pool", "chain:tasks=9", 2, ["ladder"], tasks=9, rounds=[[3.0], [12.0]], turns=[0, 2])
    (pair,) = analysis.pairs(run_with([ours, theirs]))
    assert pair.ratios == [3.0, 3.0]


def test_hand_overs_and_memory_are_told_and_drawn(tmp_path):
    cells = [
        Cell("pool", f"chain:tasks=2:payload={size}", 2, ["payload"], tasks=2, rounds=[[0.1]], hops_us=[hop])
        for size, hop in ((0, 10.0), (1 << 20, 500.0))
    ]
    cells.append(Cell("pool", "chain:tasks=2:payload=1000000000", 2, ["payload"], failure="not run: too long"))
    course = [[0.0, 1 << 20], [0.1, 9 << 20], [0.2, 5 << 20]]
    text = "chain:tasks=10:payload=200000000"
    cells.append(Cell("pool", text, 2, ["memory"], tasks=10, rounds=[[1.0]], peak_bytes=9 << 20, memory=course))
    results = run_with(cells)
    hands, held, _ = value_tables.value_tables(results)
    assert hands.columns == ("peer", "0 B", "1 MiB", "1 GB")
    assert hands.rows == [("pool", "10 (0)", "500 (0)", "not run")]
    assert held.rows[0][:4] == ("pool", "1", "9", "8")
    figures.write(results, tmp_path)
    assert {file.name for file in tmp_path.glob("*.svg")} == {"payload-two-tasks.svg", "memory-all.svg"}
    assert all(file.read_text().startswith("<svg xmlns=") for file in tmp_path.glob("*.svg"))


def test_a_readme_gets_the_summary_between_its_marks(tmp_path):
    rounds = [[1e-3]] * 3
    results = run_with([Cell("headrace", "chain:tasks=100", 2, ["ladder"], tasks=100, rounds=rounds)])
    results.machine |= {"kernel": "Linux", "python": "CPython"}
    results.peers["ray"] = PeerRecord("cluster", "tasks", skipped="not installed")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{digest.BEGIN}\nold\n{digest.END}\nafter\n")
    for _ in range(2):
        digest.replace(readme, results)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| headrace | – | 10 (100) |" in text
    assert "ray (not installed)" in text
    readme.write_text("no marks")
    with pytest.raises(UsageError, match="has no lines"):
        digest.replace(readme, results)


def test_the_package_does_not_import_its_benchmark():
    script = "import sys, headrace.client; print([name for name in sys.modules if 'bench' in name])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def run_with(cells):
    """Results of a run on some machine."""
    machine = {"date": "today", "commit": "abc", "cores": "2", "cpu": "some", "load": "0"}
    names = dict.fromkeys(cell.peer for cell in cells)
    peers = {name: PeerRecord("library", "its way", start_s=[0.1]) for name in names}
    settings = {"rounds": 3, "workers": 2}
    return Results(machine, settings, peers, cells, yardstick_us=[100.0, 101.0, 99.0], floors={"pipe, one way": 30.0})
