"""headrace on a Ray cluster; the tests themselves are in `on_ray_cluster.py`."""

import pytest
from clusters import run_example, run_tests


@pytest.mark.timeout(600)
def test_on_a_ray_cluster():
    run_tests("ray", "on_ray_cluster.py")


def test_the_example_of_the_docs(tmp_path):
    run_example("ray", "ray_cluster", tmp_path)
