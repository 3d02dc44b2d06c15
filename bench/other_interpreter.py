"""A script of this folder that runs in another interpreter and takes its turns there: a question in, seconds out."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

BENCH = Path(__file__).parent


class OtherInterpreter:
    """The script, in a `with` block. Its output goes to this process's standard error."""

    def __init__(self, python: str, script: str, *words: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, BENCH / script, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"VIRTUAL_ENV": str(Path(python).parents[1])},
        )

    def seconds(self, question: str) -> float:
        """Let it work; how long it took, by its own clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(question, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the other interpreter ended at {question!r}: its words are on standard error"
        return float(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def serve(measures: Mapping[str, Callable[[], float]]) -> None:
    """In the script: measure what is asked for until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    for question in sys.stdin:
        print(measures[question.strip()](), file=answers, flush=True)


def can_import(python: str, *modules: str) -> bool:
    """Whether an interpreter finds all of these modules."""
    script = "import sys, importlib.util as u; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"
    return subprocess.run([python, "-c", script, *modules], check=False, capture_output=True).returncode == 0
