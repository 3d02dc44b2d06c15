"""A workload of views, puts and results that move to disk, of which every value is known beforehand.

Worker 0 makes results, and worker 1 takes them.
"""

import random

import numpy as np
from large_tasks import filled, filled_in_place, plus_one, same, total
from store_watch import MIB, TIMEOUT_S

import headrace as hr

#: About half of what is alive; views, and what two tasks need, are less.
STORE_LIMIT = 32 * MIB


class Workload:
    """Rounds of it, by a client; the seed decides what they do."""

    def __init__(self, client, seed):
        self._client = client
        self._dice = random.Random(seed)
        #: Views of random age, and refs, with what they must show.
        self._views = []
        self._refs = []

    def round(self):
        """Make and take some results, and check everything that there is."""
        dice = self._dice
        graph, expected = hr.Graph(), {}
        for _ in range(dice.randint(3, 9)):
            number, items = float(dice.randrange(1_000)), self._items()
            made = graph.add(hr.task(dice.choice([filled, filled_in_place]), worker=0), number, items)
            more = graph.add(hr.task(dice.choice([plus_one, same]), worker=1), made)
            expected[made] = number
            expected[graph.add(hr.task(total, worker=1), made)] = number * items
            expected[more] = number + 1 if "plus_one" in more.key else number
        for ref, number in dice.sample(self._refs, len(self._refs) // 4):
            expected[graph.add(hr.task(plus_one, worker=dice.choice([0, 1])), ref)] = number + 1
        run = self._client.submit(graph, keep=list(expected))
        for _ in range(dice.randint(3, 8)):
            number = float(dice.randrange(1_000))
            self._refs.append((self._client.put(np.full(self._items(), number)), number))
        for node, value in expected.items():
            result = run.result(node, timeout=TIMEOUT_S)
            assert np.all(result == value), f"{node.key} is wrong"
            if dice.random() < 0.1:
                self._views.append((result, value))
        assert all(np.all(view == value) for view, value in self._views), "a view has changed"
        if dice.random() < 0.7:
            run.release()
        self._views = dice.sample(self._views, min(len(self._views), 2))
        self._refs = dice.sample(self._refs, min(len(self._refs), 32))

    def _items(self):
        """For an array of half a MiB to 2 MiB."""
        return self._dice.randint(MIB // 16, MIB // 4)
