"""What test_dask.py has a peer do, in an interpreter that has it: `peers_dask.py distributed`, or `frisky`.

Two workers of one thread each. Answers are seconds: of a task that does nothing, or of a collection.
"""

import sys

from dask_workloads import SHAPES, seconds_of, seconds_of_no_ops
from other_interpreter import serve

#: How many tasks that do nothing each runs: they take milliseconds, or a tenth of one.
NO_OPS = {"distributed": 2_000, "frisky": 100_000}


def client_of(peer):
    """Start a peer; give its client, and what must stay alive with it."""
    if peer == "distributed":
        from distributed import Client

        client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
        return client, client.cluster
    from frisky import LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, silence_summary=True)
    return cluster.get_client(), cluster


if __name__ == "__main__":
    peer = sys.argv[1]
    client, cluster = client_of(peer)
    seconds_of_no_ops(client, 1_000)
    measures = {shape: (lambda shape=shape: seconds_of(client, shape)) for shape in SHAPES}
    serve({"no-ops": lambda: seconds_of_no_ops(client, NO_OPS[peer]), **measures})
    client.close()
    cluster.close()
