"""A graph that nobody knows in advance: follow the Collatz steps of many numbers, and look closer where it gets long.

    python examples/grow_from_results.py

Each call is one task. A future may stand among the arguments of another call: its value goes from worker to worker and
not through this process. What to call next is decided here, from the results as they come in.
"""

from concurrent.futures import as_completed

import headrace as hr

BLOCK = 1_000
BLOCKS = 20


def longest(first, count):
    """Find the number with the most steps to 1 among `count` numbers; the steps and the number."""
    return max((steps(number), number) for number in range(first, first + count))


def steps(number):
    """Count the steps that a number takes to 1."""
    taken = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        taken += 1
    return taken


def path(record):
    """Write out the whole way of the number that won."""
    number = record[1]
    way = [number]
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        way.append(number)
    return way


def highest(way):
    """Give the highest number on a way."""
    return max(way)


def main():
    with hr.Client() as client:
        searches = [client.call(longest, 1 + block * BLOCK, BLOCK) for block in range(BLOCKS)]

        peaks, best = [], 0
        for search in as_completed(searches):
            taken, number = search.result()
            if taken > best:  # a new record: the graph grows by two tasks that feed on its future
                best = taken
                way = client.call(path, search)
                peaks.append((number, taken, client.call(highest, way)))

        for number, taken, peak in peaks:
            print(f"{number} takes {taken} steps and climbs to {peak.result()}")


if __name__ == "__main__":
    main()
