"""The README keeps its word: its code runs, its commands exist, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES_MAX = 12


def blocks(language):
    """The fenced blocks of one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [content for named, content in fenced if named == language]


def test_the_code_is_short_and_runs(tmp_path):
    (code,) = blocks("python")
    assert len(code.splitlines()) <= LINES_MAX
    script = tmp_path / "readme.py"
    script.write_text(code)
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    pages = [(ROOT / name).read_text().split() for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    assert run.stdout == f"{max(map(len, pages))} words in the longest\n"


def test_two_commands_install_and_run():
    demo, tests = (block.strip() for block in blocks(""))
    assert demo == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/headrace demo"
    assert tests == ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
