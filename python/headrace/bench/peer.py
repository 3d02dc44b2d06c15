"""The process of an engine: `python -m headrace.bench.peer NAME`, requests in, answers out, one JSON a line."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from headrace.bench.bodies import stamp
from headrace.bench.engine import Engine
from headrace.bench.engines import PEERS
from headrace.bench.plans import Plan, parse
from headrace.errors import UsageError

Answer = dict[str, Any]


class Host:
    """One engine and the plan that it ran last."""

    def __init__(self, name: str) -> None:
        self.peer = PEERS[name]
        self.engine: Engine | None = None
        self.plan: Plan | None = None
        self.actions: dict[str, Callable[[Answer], Answer]] = {
            "start": self.start,
            "run": self.run,
            "stop": self.stop,
        }

    def start(self, request: Answer) -> Answer:
        """Start the engine: seconds from here, imports included, until a first task has run on it."""
        begin = time.perf_counter()
        module = import_module(f"headrace.bench.engines.{self.peer.module}")
        kind: Callable[..., Engine] = getattr(module, _class_name(self.peer.module))
        self.engine = kind(request["workers"], **self.peer.options)
        self.engine.start()
        first = Plan(parse("independent:tasks=1"))
        first.check(self.engine.run(first))
        return {"start_s": time.perf_counter() - begin, "versions": self.engine.versions()}

    def run(self, request: Answer) -> Answer:
        """Run a workload some times; each answer is checked outside the clock."""
        assert self.engine is not None
        if self.plan is None or str(self.plan.workload) != request["workload"]:
            try:
                self.plan = Plan(parse(request["workload"]))
            except UsageError as error:
                return {"refused": str(error)}
            assert self.plan.expected is not None  # now, and not beside a clock
        plan, engine = self.plan, self.engine
        if reason := engine.refusal(plan):
            return {"refused": reason}
        answer: Answer = {"tasks": len(plan), "edges": plan.edges, "seconds": [], "submit_s": []}
        if plan.function is stamp:
            answer |= {"first_task_s": [], "hops_us": []}
        end = time.perf_counter() + request.get("budget_s", 0)
        gc.collect()
        for _ in range(request["repeats"]):
            engine.submitted_ns = None
            begin_ns = time.monotonic_ns()
            results = engine.run(plan)
            seconds = (time.monotonic_ns() - begin_ns) / 1e9
            plan.check(results)
            answer["seconds"].append(seconds if engine.elapsed_s is None else engine.elapsed_s)
            if engine.submitted_ns is not None:
                answer["submit_s"].append((engine.submitted_ns - begin_ns) / 1e9)
            if plan.function is stamp:
                answer["first_task_s"].append((min(result[1] for result in results) - begin_ns) / 1e9)
                answer["hops_us"] += _hops_us(plan, results)
            del results
            if time.perf_counter() > end:
                break
        return answer

    def stop(self, _request: Answer) -> Answer:
        """Stop the engine."""
        if self.engine is not None:
            self.engine.stop()
            self.engine = None
        return {}


def _hops_us(plan: Plan, results: list[Any]) -> list[float]:
    """From the end of the last task that a task needed to its own beginning."""
    return [
        round((results[number][1] - max(results[before][2] for before in needed)) / 1e3, 2)
        for number, needed in enumerate(plan.predecessors)
        if needed
    ]


def _class_name(module: str) -> str:
    return "".join(word.capitalize() for word in module.split("_"))


def main(name: str) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    host = Host(name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = host.actions[request["do"]](request)
        except Exception as error:  # whatever a foreign system raises is a reason to skip it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    if host.engine is not None:
        host.stop({})


if __name__ == "__main__":
    main(sys.argv[1])
