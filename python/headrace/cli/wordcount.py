"""The demo's computation: write pages, count their words, merge the counts in a tree.

How often a word stands on a page follows from two numbers, so the whole count is known without counting.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from headrace import Graph

if TYPE_CHECKING:
    from headrace import Node

_VOCABULARY = """
basin bed brook canal channel current ditch flow flume gate intake lade leat mill penstock pond race river sluice spill
stream weir wheel water
"""

#: What is written.
WORDS = tuple(_VOCABULARY.split())

#: A word stands at most so often on a page.
OCCURRENCES_MAX = 23


def build(pages: int) -> tuple[Graph, Node[dict[str, int]]]:
    """Build the graph: `3 * pages - 1` tasks.

    Args:
        pages: how many pages, at least one.

    Returns:
        The graph, and the node whose value is the whole count.
    """
    graph = Graph()
    written = graph.map(write_page, range(pages))
    counted = graph.map(count_words, written)
    return graph, graph.reduce(merge_counts, counted)


def expected_count(pages: int) -> dict[str, int]:
    """Give the right answer by arithmetic."""
    return {word: sum(occurrences(page, rank) for page in range(pages)) for rank, word in enumerate(WORDS)}


def occurrences(page: int, rank: int) -> int:
    """Give how often the word of that rank stands on the page."""
    return 1 + (page + 7 * rank) % OCCURRENCES_MAX


def write_page(page: int) -> str:
    """Write one page: its words in an order of their own."""
    words = [word for rank, word in enumerate(WORDS) for _ in range(occurrences(page, rank))]
    random.Random(page).shuffle(words)
    return " ".join(words)


def count_words(page: str) -> dict[str, int]:
    """Count the words of one page."""
    counts: dict[str, int] = {}
    for word in page.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def merge_counts(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    """Add two counts."""
    return {word: left.get(word, 0) + right.get(word, 0) for word in left | right}
