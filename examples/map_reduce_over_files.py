"""Count the lines and words of many files: one task a file, the counts summed in a tree.

    python examples/map_reduce_over_files.py [FOLDER]

Without a folder it counts headrace's own sources.
"""

import sys
from pathlib import Path

import headrace as hr


def count(path):
    """Count the lines and words of one file."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return {"files": 1, "lines": len(text.splitlines()), "words": len(text.split())}


def total(left, right):
    """Add two counts."""
    return {name: left[name] + right[name] for name in left}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(hr.__file__).parent
    paths = sorted(str(path) for path in folder.rglob("*.py"))
    if not paths:
        sys.exit(f"no Python files in {folder}")

    graph = hr.Graph()
    counts = graph.map(count, paths)
    answer = hr.run(graph, graph.reduce(total, counts))

    print(f"{answer['files']} files, {answer['lines']} lines, {answer['words']} words")


if __name__ == "__main__":
    main()
