"""How long is it from `dask_cluster.start(client)` to a first result, on a LocalCluster that is up?"""

import subprocess
import sys

import pytest

from figures import at_most
from repository import REPOSITORY

SCRIPT = """
import time
import distributed
from headrace.integrations import dask_cluster

if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        with distributed.Client(local) as dask:
            dask.submit(pow, 2, 10).result()
            start = time.perf_counter()
            cluster = dask_cluster.start(dask)
            client = cluster.client()
            value = client.call(pow, 2, 10).result()
            elapsed = time.perf_counter() - start
            assert value == 1024
            client.close()
            cluster.close()
    print(elapsed)
"""


def test_start_to_first_result(rounds, record):
    pytest.importorskip("distributed")
    samples = []
    for _ in range(rounds):
        run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=REPOSITORY)
        samples.append(float(run.stdout))
    record(at_most("start on a LocalCluster of Dask to first result, 2 workers", samples, "s", bar=2))
