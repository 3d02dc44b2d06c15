"""Every example runs as a user would run it, and says what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: What each script's output must match, line for line at its end.
OUTPUTS = {
    "map_reduce_over_files.py": r"2 files, 3 lines, 5 words\n",
    "grow_from_results.py": r"(\d+ takes \d+ steps and climbs to \d+\n)*17673 takes 278 steps and climbs to 497176\n",
    "one_line_task.py": r"25 primes below 100, counted here\n6413 primes below 64000, counted by workers\n",
    "share_with_child_processes.py": r"8000000 bytes came back; all rows add up to 1000\.0\n",
}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(OUTPUTS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_example(name, tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "one.py").write_text("a b c\n")
    (tmp_path / "deeper" / "two.py").write_text("d\ne\n")
    arguments = [str(tmp_path)] if name == "map_reduce_over_files.py" else []
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(OUTPUTS[name], run.stdout), run.stdout
