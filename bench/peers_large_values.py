"""What test_large_values_peers.py has Dask or Ray do, in an interpreter that has it: `peers_large_values.py dask`.

Two workers of one thread each. `untouched` is the chain of tasks that return an array, each on the other worker, up to
the array in the client; `put` brings an array to the workers; `result` takes one that is ready to the client.
"""

import sys
import time

import numpy as np

from other_interpreter import serve

HOPS = 10
ITEMS = 25_000_000


def untouched(array):
    return array


def ones(items):
    return np.ones(items)


class Dask:
    """Dask distributed: results stay in the memory of their worker, and are sent from worker to worker."""

    def __init__(self):
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
        self.client = Client(cluster)
        self.workers = list(self.client.scheduler_info()["workers"])

    def put(self, array):
        return self.client.scatter(array, workers=self.workers[:1], direct=True, hash=False)

    def hop(self, number, array):
        return self.client.submit(untouched, array, workers=[self.workers[number % 2]], pure=False)

    def make(self):
        from distributed import wait

        future = self.client.submit(ones, ITEMS, workers=self.workers[:1], pure=False)
        wait(future)
        return future

    def get(self, future):
        return future.result()

    def close(self):
        self.client.close()
        self.client.cluster.close()


class Ray:
    """Ray: large results lie in its object store, which is shared memory; two actors are the two workers."""

    def __init__(self):
        import ray

        self.ray = ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=5 << 30)

        @ray.remote
        class Worker:
            def untouched(self, array):
                return untouched(array)

            def ones(self, items):
                return ones(items)

        self.workers = [Worker.remote(), Worker.remote()]

    def put(self, array):
        return self.ray.put(array)

    def hop(self, number, array):
        return self.workers[number % 2].untouched.remote(array)

    def make(self):
        ref = self.workers[0].ones.remote(ITEMS)
        self.ray.wait([ref], fetch_local=False)
        return ref

    def get(self, ref):
        return self.ray.get(ref)

    def close(self):
        self.ray.shutdown()


def main(peer):
    source = peer.put(np.ones(ITEMS))
    array = np.arange(float(ITEMS))

    def time_untouched():
        start = time.perf_counter()
        passed = source
        for hop in range(HOPS):
            passed = peer.hop(hop, passed)
        value = peer.get(passed)
        seconds = time.perf_counter() - start
        assert value[0] == value[-1] == 1.0
        return seconds

    def time_put():
        start = time.perf_counter()
        ref = peer.put(array)
        seconds = time.perf_counter() - start
        assert peer.get(ref)[-1] == ITEMS - 1.0
        return seconds

    def time_result():
        made = peer.make()
        start = time.perf_counter()
        value = peer.get(made)
        seconds = time.perf_counter() - start
        assert value[0] == value[-1] == 1.0
        return seconds

    serve({"untouched": time_untouched, "put": time_put, "result": time_result})
    peer.close()


if __name__ == "__main__":
    main({"dask": Dask, "ray": Ray}[sys.argv[1]]())
