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
    assert int(re.search(r"(\d+) graphs ran on headrace", done.stdout)[1]) > 300
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_bags_and_delayed(mode):
    pytest.importorskip("numpy")
    assert run_suite(mode, "bag/tests/test_bag.py", "tests/test_delayed.py") > 240


#: Arrays' tests that want a plugin of pytest, or warnings as errors, and say nothing of schedulers.
NOT_OURS = ["test_binary_operator_delegation", "test_nanquantile_all_nan"]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_arrays(mode):
    pytest.importorskip("numpy")
    assert (
        run_suite(mode, "array/tests", options=["-k", " and ".join(f"not {name}" for name in ["cupy", *NOT_OURS])])
        > 4_000
    )


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_dataframes(mode):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert run_suite(mode, "dataframe/tests", "dataframe/dask_expr/tests") > 1_000
