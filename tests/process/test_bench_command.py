"""`headrace bench` as a person runs it: a short round over real engines, its files, and nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.bench.engines import chosen
from headrace.bench.session import PeerFailed, Session

TIMEOUT_S = 150


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADRACE_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def bench(*words):
    command = [sys.executable, "-m", "headrace", "bench", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def pids_with(home):
    """Processes that a command with this home has started, and all that they have."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"HEADRACE_BENCH_HOME={home / 'home'}".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.timeout(180)
def test_a_smoke_run_measures_checks_and_reports(home):
    saved, report = home / "results" / "a.json", home / "report.html"
    run = bench(
        *("run", "--smoke", "--peers", "headrace,headrace-sync,pool,airflow-style-event,ray"),
        *(
            "--workloads",
            "chain,stencil_1d",
            "--studies",
            "ladder,latency",
            "--json",
            saved,
            "--html",
            report,
        ),
    )
    assert run.returncode == 0, run.stderr
    assert not pids_with(home)
    results = json.loads(saved.read_text())
    measured = {cell["peer"] for cell in results["cells"] if cell["rounds"]}
    assert measured == {"headrace", "headrace-sync", "pool", "airflow-style-event"}
    failures = {(cell["peer"], cell["workload"]): cell["failure"] for cell in results["cells"] if cell["failure"]}
    assert all("pin=1" in workload and "does not let say" in reason for (_, workload), reason in failures.items())
    assert "headrace" not in {peer for peer, _ in failures}
    assert "--install" in results["peers"]["ray"]["skipped"]
    chain = next(
        cell
        for cell in results["cells"]
        if cell["peer"] == "headrace" and "latency" in cell["studies"] and cell["hops_us"]
    )
    assert min(chain["hops_us"]) >= 0
    assert all(cell["peak_bytes"] > 1 << 20 for cell in results["cells"])
    assert "<svg" in report.read_text()
    assert "## Where headrace does not win" in run.stdout
    again = bench("compare", saved, saved)
    assert again.returncode == 0
    assert "cells in both" in again.stdout


@pytest.mark.timeout(180)
def test_values_memory_and_the_model_of_airflow_are_studied(home):
    pytest.importorskip("numpy")
    run = bench(
        *("run", "--smoke", "--peers", "headrace,pool,dask-sync,airflow-style-event,airflow-style-calibrated"),
        *("--studies", "payload,memory,values,airflow", "--out", home / "out"),
    )
    assert run.returncode == 0, run.stderr
    assert not pids_with(home)
    results = json.loads((home / "out" / "results.json").read_text())
    cells = {(cell["peer"], cell["workload"]): cell for cell in results["cells"]}
    large = cells["headrace", "chain:tasks=2:payload=1048576"]
    assert large["hops_us"]
    assert large["back_s"]
    assert cells["pool", "chain:tasks=2:payload=1048576"]["moved_bytes"] > 3 << 20
    course = cells["headrace", "chain:tasks=10:payload=2000000"]["memory"]
    assert len(course) >= 2
    assert all(held > 10 << 20 for _, held in course), "four processes"
    pinned = "chain:tasks=10:body=untouched:payload=2000000:pin=1"
    assert cells["headrace", pinned]["back_s"]
    assert "does not let say" in cells["airflow-style-event", pinned]["failure"]
    assert "no store" in cells["pool", "put:payload=2000000"]["failure"]
    assert cells["headrace", "put:payload=2000000"]["rounds"]
    own = cells["airflow-style-event", "chain:tasks=16"]["own"]
    assert min(own["gap_s"]) >= 0
    assert "is told by airflow" in results["peers"]["airflow-style-calibrated"]["skipped"]
    assert {path.name for path in (home / "out").iterdir()} == {"results.json", "report.html", "summary.md", "figures"}
    assert (home / "out" / "figures" / "memory-all.svg").exists()


def test_what_finds_no_time_is_told(home):
    run = bench(
        *("run", "--smoke", "--peers", "headrace,pool", "--minutes", "0.1", "--workloads"),
        *(",".join(f"independent:tasks=4:body=sleep:us={us}" for us in (900_001, 900_002, 900_003, 900_004)),),
    )
    assert run.returncode == 0, run.stderr
    assert "used up" in run.stdout


def test_list_shows_peers_workloads_and_studies(home):
    run = bench("list")
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("airflow-style", "stencil_1d", "--install", "grain"))


def test_bad_words_are_a_line_and_an_exit_code(home):
    for words, text in (
        (["--peers", "spark"], "no peer 'spark'"),
        (["--workloads", "ring"], "no workload 'ring'"),
        (["--studies", "luck"], "no study 'luck'"),
    ):
        run = bench("run", "--smoke", *words)
        assert run.returncode == 2
        assert text in run.stderr
        assert len(run.stderr.splitlines()) == 1


def test_an_engine_that_does_not_answer_is_ended_with_all_that_it_started(home):
    (peer,) = chosen("pool")
    with Session(peer, 2, home) as session:
        family = session.family
        assert len(family.pids()) >= 3, "the engine and its workers"
        with pytest.raises(PeerFailed, match="no answer within 1 s"):
            session.run("independent:tasks=2:body=sleep:us=20000000", 1, 0, timeout_s=1)
    assert not family.pids()


def test_an_engine_that_dies_leaves_its_last_words(home):
    (peer,) = chosen("pool")
    with Session(peer, 1, home) as session:
        session._process.kill()
        with pytest.raises(PeerFailed, match="its process ended"):
            session.run("chain:tasks=2", 1, 0, timeout_s=20)
