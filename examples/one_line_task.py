"""An existing function becomes a task by one line, and stays the function that it was.

python examples/one_line_task.py
"""

import headrace as hr


@hr.task  # the one line
def primes_below(limit, start=0):
    """Count the primes from `start` to just below `limit`."""
    return sum(is_prime(number) for number in range(start, limit))


def is_prime(number):
    """Say whether a number is prime."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def main():
    # Still an ordinary function:
    print(f"{primes_below(100)} primes below 100, counted here")

    # And a task, 64 times:
    graph = hr.Graph()
    for start in range(0, 64_000, 1_000):
        graph.add(primes_below, start + 1_000, start=start)
    print(f"{sum(hr.run(graph))} primes below 64000, counted by workers")


if __name__ == "__main__":
    main()
