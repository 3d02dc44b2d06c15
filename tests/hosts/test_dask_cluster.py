"""headrace on a Dask cluster; the tests themselves are in `on_dask_cluster.py`."""

import pytest
from clusters import run_example, run_tests


@pytest.mark.timeout(400)
def test_on_a_dask_cluster():
    run_tests("distributed", "on_dask_cluster.py")


def test_the_example_of_the_docs(tmp_path):
    run_example("distributed", "dask_cluster", tmp_path)
