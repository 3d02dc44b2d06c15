"""The worker processes of a client."""

import headrace
from workloads import inc


def worker_pids(client: headrace.Client, workers: int) -> list[int]:
    """Wait until each worker has run something; their process ids."""
    for call in [client.call(headrace.task(inc, worker=worker), worker) for worker in range(workers)]:
        call.result()
    graph = headrace.Graph()
    graph.add(inc, 0)
    run = client.submit(graph)
    assert run.results() == [1]
    pids = [worker.pid for worker in run.statistics().workers]
    assert len(pids) == workers
    assert all(pid > 0 for pid in pids), "every worker lives"
    return pids
