"""Share a large array with the processes of a pool, and take arrays back, without a copy and without a client.

python examples/share_with_child_processes.py
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from headrace import store


def normalised(table, start, stop):
    """Give some rows of a shared table, each divided by its sum, as shared memory again."""
    rows = table.get()[start:stop]  # a read-only view of the parent's memory
    with store.Store(limit=1 << 30) as shared:
        result = shared.empty(rows.shape)
        np.divide(rows, rows.sum(axis=1, keepdims=True), out=result)
        return shared.put(result)  # copies nothing: it was made in place


def main():
    with store.Store(limit=1 << 30) as shared:
        array = shared.empty((1_000, 1_000))
        array[:] = np.arange(1, 1_001)
        table = shared.put(array)  # copies nothing either

        spawn = multiprocessing.get_context("spawn")  # or "fork", or "forkserver"
        with ProcessPoolExecutor(2, mp_context=spawn) as pool:
            parts = [item.get() for item in pool.map(normalised, [table] * 2, [0, 500], [500, 1_000])]

        print(f"{sum(part.nbytes for part in parts)} bytes came back; all rows add up to {sum(map(np.sum, parts)):.1f}")


if __name__ == "__main__":
    main()
