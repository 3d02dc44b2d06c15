"""The short version of the soak; `soak.py` says what it does, and runs the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak.py")


def soak(minutes, kill_every_s):
    command = [sys.executable, str(SOAK), "--minutes", str(minutes), "--kill-every", str(kill_every_s)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * minutes + 120)
    assert run.returncode in (0, 1), run.stderr
    return json.loads(run.stdout)


def check(report, kills_min):
    assert report["errors"] == []
    assert (report["lost"], report["duplicated"], report["wrong"], report["without_effect"]) == (0, 0, 0, 0), report
    assert report["kills"] >= kills_min, report
    assert report["deaths"] >= report["kills"], report
    assert report["left_processes"] == 0
    assert report["tasks"] > 50 * report["seconds"], "hardly anything ran"


@pytest.mark.timeout(180)
def test_twenty_seconds_with_kills_lose_nothing():
    report = soak(1 / 3, 0.7)
    check(report, 12)
    # A slope over seconds says little: it is held against growth that could not be missed.
    assert report["rss_kib_per_minute"] < 64 << 10, report
    assert report["descriptors_per_minute"] < 30, report


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_ten_minutes_with_kills_lose_nothing_and_nothing_grows():
    report = soak(10, 1.0)
    check(report, 400)
    assert report["rss_kib_per_minute"] < 256, report
    assert abs(report["descriptors_per_minute"]) < 0.5, report
