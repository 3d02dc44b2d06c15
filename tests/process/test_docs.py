"""The complete examples in the docs run."""

import re
from pathlib import Path

import pytest
from store_watch import run_script

DOCS = Path(__file__).parents[2] / "docs"
#: Pages whose blocks of Python, one after the other, are a program.
COMPLETE = ["dask.md", "executor.md", "joblib.md", "kedro.md", "nested.md", "parsl.md"]


@pytest.mark.parametrize("page", COMPLETE)
def test_the_example_of_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for host in re.findall(r"^(?:from|import) (dask|joblib|kedro|parsl)\b", "\n".join(blocks), re.MULTILINE):
        pytest.importorskip(host)
    script = run_script("\n".join(blocks))
    assert (script.returncode, script.stderr) == (0, ""), script.stderr
