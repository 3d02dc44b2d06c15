"""Runs tests on another engine's cluster in a process of their own, and examples of the docs."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_tests(package, file):
    """Run the tests in a file, all of which must pass, if the engine's package is there."""
    skip_without(package)
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "--timeout", "120"]
    done = run("-m", "pytest", *options, file, cwd=HERE)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


def skip_without(package):
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed: headrace on its clusters is NOT TESTED HERE")


def run(*words, cwd):
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "HEADRACE_TEST_DISTRIBUTED": "1"}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def run_example(package, word, tmp_path):
    """Run the example of docs/clusters.md that has a word in it."""
    skip_without(package)
    page = (HERE.parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    (block,) = [block for block in blocks if word in block]
    (tmp_path / "example.py").write_text(block)
    done = run(tmp_path / "example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
