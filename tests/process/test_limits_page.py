"""`docs/limits.md` keeps its word where no other test does: its code runs."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    script = tmp_path / "limits.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    why, result = run.stdout.splitlines()
    assert why.startswith("'len-3' ")
    assert result == "3"
