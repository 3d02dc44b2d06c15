"""Dask's own tests on headrace: of scheduler functions here, of its collections in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

dask = pytest.importorskip("dask")

from dask.utils_test import GetFunctionTestMixin  # noqa: E402

from headrace.integrations.dask import DaskClient  # noqa: E402

HERE = Path(__file__).parent
DASK = Path(dask.__file__).parent


@pytest.fixture(scope="class", params=["threads", "processes"])
def client(request):
    with DaskClient(workers=2, mode=request.param) as client:
        yield client


@pytest.mark.usefixtures("on_client")
class TestGet(GetFunctionTestMixin):
    """What Dask expects of any scheduler function."""

    @pytest.fixture
    def on_client(self, client, monkeypatch):
        monkeypatch.setattr(type(self), "get", staticmethod(client.get), raising=False)


def run_suite(mode, *places, options=()):
    """Run files of Dask's tests on headrace; how many passed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "dask_on_headrace", "-p", "no:cacheprovider", "-W", "ignore"),
            *("-c", os.devnull, "--rootdir", str(DASK), "--timeout", "120", *options),
            *(str(DASK / place) for place in places),
        ],
        env=os.environ | {"PYTHONPATH": str(HERE), "HEADRACE_MODE": mode},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert int(re.search(r"(\d+) graphs ran on headrace", done.stdout)[1]) > 50
    return int(re.search(r"(\d+) passed", done.stdout)[1])


#: Parts of Dask's suites that take minutes each, and the tests that they have at least.
PARTS = {
    "array, core": (["array/tests/test_array_core.py"], 500),
    "array, reductions": (["array/tests/test_reductions.py"], 300),
    "array, routines": (["array/tests/test_routines.py"], 300),
    "array, the rest": (["array/tests"], 2_000),
    "dataframe, collections": (["dataframe/dask_expr/tests/test_collection.py"], 500),
    "dataframe, expressions": (["dataframe/dask_expr/tests"], 500),
    "dataframe, core": (["dataframe/tests/test_dataframe.py"], 300),
    "dataframe, groups": (["dataframe/tests/test_groupby.py"], 300),
    "dataframe, joins": (["dataframe/tests/test_multi.py"], 300),
    "dataframe, files": (["dataframe/io/tests"], 500),
    "dataframe, the rest": (["dataframe/tests"], 500),
}
MODES = ("threads", "processes")

#: Arrays' tests that want a plugin of pytest, or warnings as errors, and say nothing of schedulers.
NOT_OURS = ["test_binary_operator_delegation", "test_nanquantile_all_nan", "cupy"]


def run_part(mode, places, others=()):
    """Run some of Dask's tests of arrays and dataframes, without those that other parts have."""
    pytest.importorskip("numpy")
    if places[0].startswith("dataframe"):
        pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
    ignored = [f"--ignore={DASK / other}" for other in others]
    return run_suite(mode, *places, options=["-k", " and ".join(f"not {name}" for name in NOT_OURS), *ignored])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_bags_and_delayed(mode):
    pytest.importorskip("numpy")
    assert run_suite(mode, "bag/tests/test_bag.py", "tests/test_delayed.py") > 240


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_some_of_arrays(mode):
    places = [f"array/tests/test_{name}.py" for name in ("map_blocks", "overlap", "rechunk")]
    assert run_part(mode, places) > 100


@pytest.mark.slow
@pytest.mark.timeout(2_400)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", PARTS)
def test_arrays_and_dataframes(part, mode):
    places, least = PARTS[part]
    others = [place for other, (files, _) in PARTS.items() if other != part for place in files if place.endswith(".py")]
    assert run_part(mode, places, others) > least
