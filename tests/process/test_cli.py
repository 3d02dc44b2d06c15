"""The command line as a script sees it: output, exit codes, one line for each error, nothing left behind."""

import gzip
import json
import os
import signal
import subprocess
import sys
import uuid
from importlib.metadata import version
from pathlib import Path

import pytest

from headrace.cli import wordcount
from headrace.cli.app import ExitCode, run_command

TIMEOUT_S = 60


def headrace(*arguments, **options):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "headrace", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, **options)


def workflow(parents, runtime_s=0.001):
    """Make a small WfFormat 1.5 document from `{task: [parents]}`."""
    children = {name: [other for other, needed in parents.items() if name in needed] for name in parents}
    return {
        "name": "small",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {
                "tasks": [
                    {"name": name, "id": name, "parents": needed, "children": children[name]}
                    for name, needed in parents.items()
                ]
            },
            "execution": {
                "makespanInSeconds": 1,
                "executedAt": "2020-01-01T00:00:00Z",
                "tasks": [{"id": name, "runtimeInSeconds": runtime_s} for name in parents],
            },
        },
    }


DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


@pytest.fixture
def diamond(tmp_path):
    path = tmp_path / "diamond.json"
    path.write_text(json.dumps(workflow(DIAMOND)))
    return path


def test_version():
    run = headrace("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"headrace, version {version('headrace')}\n", "")


def test_the_installed_command_is_the_module():
    script = Path(sys.executable).with_name("headrace")
    run = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == headrace("--help").stdout
    assert all(str(int(code)) in run.stdout for code in ExitCode)


def test_demo_counts_right():
    run = headrace("demo")
    assert run.returncode == 0, run.stderr
    assert "correct: 1,727,970 words" in run.stdout
    assert "17,999" in run.stdout
    assert "17,999 of 17,999 ended" in run.stderr, "progress goes to standard error"


def test_demo_as_json():
    run = headrace("demo", "--pages", 200, "--workers", 2, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert report["ok"]
    assert report["tasks"] == sum(report["tasks_by_worker"]) == 599
    assert report["words"] == sum(wordcount.expected_count(200).values())
    assert set(report["phases_s"]) == {"build", "submit", "first lease", "run", "read back"}
    assert 0 < report["hop_on_one_worker_us"] < report["hop_between_workers_us"]


def test_demo_on_one_worker_has_nobody_to_hop_to():
    run = headrace("demo", "--pages", 1, "--workers", 1, "--json")
    report = json.loads(run.stdout)
    assert report["ok"]
    assert (report["tasks"], report["workers"]) == (2, 1)
    assert "hop_between_workers_us" not in report


def test_a_wrong_answer_is_told_by_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(wordcount, "expected_count", lambda pages: {"water": 1})
    assert run_command(["demo", "--pages", "2", "--workers", "1"]) == ExitCode.TASKS_FAILED
    assert "WRONG" in capsys.readouterr().out


def test_run_checks_every_task(diamond):
    run = headrace("run", diamond, "--workers", 2)
    assert run.returncode == 0, run.stderr
    assert "4 of 4" in run.stdout


@pytest.mark.parametrize("packed", [False, True])
def test_run_as_json(diamond, packed):
    if packed:
        zipped = diamond.with_suffix(".json.gz")
        zipped.write_bytes(gzip.compress(diamond.read_bytes()))
        diamond = zipped
    run = headrace("run", diamond, "--workers", 2, "--time-scale", 10, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert report["ok"]
    assert (report["tasks"], report["edges"], report["tasks_right"]) == (4, 4, 4)
    assert report["critical_path_s"] == pytest.approx(0.03)
    assert report["work_s"] == pytest.approx(0.04)
    assert report["makespan_s"] >= report["critical_path_s"]


def test_run_says_which_tasks_are_wrong(diamond, monkeypatch, capsys):
    from headrace.cli import workflow as command

    right = command.sequentially
    monkeypatch.setattr(command, "sequentially", lambda flow: right(flow) | {"c": "something else"})
    assert run_command(["run", str(diamond), "--workers", "1"]) == ExitCode.TASKS_FAILED
    output = capsys.readouterr()
    assert "3 of 4" in output.out
    assert "c" in output.err


BAD_FILES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[1, 2]",
    "no workflow": b'{"schemaVersion": "1.5"}',
    "no UTF-8": b"\xff\xfe\x00",
    "other version": json.dumps(workflow(DIAMOND) | {"schemaVersion": "1.3"}).encode(),
    "unknown parent": json.dumps(workflow({"a": ["z"]})).encode(),
    "cycle": json.dumps(workflow({"a": ["b"], "b": ["a"]})).encode(),
    "negative time": json.dumps(workflow(DIAMOND, runtime_s=-1)).encode(),
    "half a gzip": gzip.compress(json.dumps(workflow(DIAMOND)).encode())[:-20],
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_line(tmp_path, content):
    path = tmp_path / ("bad.json.gz" if content.startswith(b"\x1f") else "bad.json")
    path.write_bytes(content)
    assert_one_line(headrace("run", path), ExitCode.USAGE)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dmeo",),
        ("demo", "--wrokers", 2),
        ("demo", "--workers", 0),
        ("demo", "--workers", 100_000),
        ("demo", "--workers", "two"),
        ("demo", "--pages", 0),
        ("run",),
        ("run", "no such file"),
        ("run", "."),
        ("run", __file__, "--time-scale", -1),
        ("run", __file__, "--time-scale", "nan"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)) or "nothing",
)
def test_bad_usage_is_one_line(arguments):
    assert_one_line(headrace(*arguments), ExitCode.USAGE)


def assert_one_line(run, code):
    """The error is one line on standard error that begins with the program's name, and no traceback."""
    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.startswith("headrace: ")
    assert run.stderr.count("\n") == 1
    assert len(run.stderr) < 400


def test_ctrl_c_ends_everything(tmp_path):
    path = tmp_path / "long.json"
    path.write_text(json.dumps(workflow({str(number): [] for number in range(8)}, runtime_s=60)))
    mark = f"HEADRACE_TEST={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")])
    command = [sys.executable, "-m", "headrace", "run", str(path), "--workers", "2", "--time-scale", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout.readline(), "the first line comes before the run"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == ExitCode.INTERRUPTED, (output, errors)
    assert errors.endswith("headrace: interrupted\n")
    assert "Traceback" not in errors
    assert processes_with(mark) == []


def processes_with(mark):
    """The processes whose environment holds `mark`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # ended meanwhile, or not ours
    return found


def test_a_reader_that_goes_away_is_no_traceback():
    command = [sys.executable, "-m", "headrace", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_S)
    os.close(writer)
    assert (run.returncode, run.stderr) == (ExitCode.BROKEN_PIPE, "")


# -- odd places and moments --------------------------------------------------------------------------------------------


def test_help_is_laid_out_for_people():
    run = headrace("--help")
    assert "\b" not in run.stdout
    assert "\\b" not in run.stdout
    assert "\n    0    everything ran and every answer is right\n" in run.stdout


def test_a_workflow_without_tasks_is_soon_done(tmp_path):
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(workflow({})))
    for options in ([], ["--json"]):
        run = headrace("run", path, "--workers", 1, *options)
        assert (run.returncode, run.stderr if options else "") == (0, "")


def test_a_runtime_of_ages_is_refused(tmp_path):
    path = tmp_path / "ages.json"
    path.write_text(json.dumps(workflow(DIAMOND, runtime_s=1e308)))
    run = headrace("run", path, "--workers", 1)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "has the runtime 1e+308" in run.stderr


def test_a_workflow_may_come_through_a_pipe(diamond):
    run = headrace("run", "/dev/stdin", "--workers", 1, "--json", input=diamond.read_text())
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["tasks_right"] == 4


@pytest.mark.parametrize("where", ["/dev/full", None])
def test_output_that_cannot_be_written_is_told_in_a_line(where, diamond):
    target = f"> {where}" if where else ">&-"
    command = [
        "sh",
        "-c",
        f'"$@" {target}',
        "sh",
        sys.executable,
        "-m",
        "headrace",
        "run",
        str(diamond),
        "--workers",
        "1",
    ]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_S)
    assert run.returncode == ExitCode.INFRASTRUCTURE
    assert run.stderr.splitlines()[-1].startswith("headrace: ")
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr


def test_an_interrupt_of_the_first_moment_ends_the_process():
    program = """
import signal, sys
from headrace import cli
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "headrace.cli.app":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
cli.main()
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert (run.returncode, run.stderr) == (-signal.SIGINT, "")
