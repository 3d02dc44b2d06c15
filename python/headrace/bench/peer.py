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

from headrace.bench.bodies import header_of, payload, stamp
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
        self.has_numpy = False
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
        engine.prepare(plan)
        if plan.is_large and not self.has_numpy:
            self.has_numpy = True
            # Every worker imports numpy, and not beside a clock.
            for _ in range(2):
                engine.run(Plan(parse(f"independent:tasks={8 * engine.workers}:payload=0")))
        samples = Samples(plan)
        end = time.perf_counter() + request.get("budget_s", 0)
        gc.collect()
        value = plan.function(*plan.constants(0)) if plan.workload.shape == "put" else None
        for _ in range(request["repeats"]):
            engine.submitted_ns, engine.own_times = None, {}
            begin_ns = time.monotonic_ns()
            if value is not None:
                held, results = engine.put(value), [value]
            else:
                held, results = None, engine.run(plan)
            end_ns = time.monotonic_ns()
            plan.check(results)
            samples.note(engine, begin_ns, end_ns, results)
            del held, results
            if time.perf_counter() > end:
                break
        return samples.as_answer()

    def stop(self, _request: Answer) -> Answer:
        """Stop the engine."""
        if self.engine is not None:
            self.engine.stop()
            self.engine = None
        return {}


class Samples:
    """What runs of a plan have shown."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lists: dict[str, list[float]] = {"seconds": []}
        self.own: dict[str, list[float]] = {}

    def note(self, engine: Engine, begin_ns: int, end_ns: int, results: list[Any]) -> None:
        """Note one run."""
        plan = self.plan
        self._add("seconds", (end_ns - begin_ns) / 1e9 if engine.elapsed_s is None else engine.elapsed_s)
        if engine.submitted_ns is not None:
            self._add("submit_s", (engine.submitted_ns - begin_ns) / 1e9)
        if plan.function is stamp:
            self._add("first_task_s", (min(result[1] for result in results) - begin_ns) / 1e9)
            self._add("hops_us", *_hops_us(plan, results))
        elif plan.is_large and plan.workload.shape != "put":
            headers = [header_of(result) for result in results]
            self._add("back_s", (end_ns - max(header[2] for header in headers)) / 1e9)
            if plan.function is payload and plan.edges:
                self._add("hops_us", *[(header[1] - header[3]) / 1e3 for header in headers])
        if engine.own_times:
            self._note_own(engine.own_times)

    def _note_own(self, times: dict[int, tuple[float, float, float]]) -> None:
        """What the system's own records say of each task: how long it took to be found ready, to begin, to end."""
        first = min(queued for queued, _, _ in times.values())
        for number, (queued, began, ended) in times.items():
            needed = self.plan.predecessors[number]
            ready = max((times[before][2] for before in needed), default=first)
            phases = {
                "gap_s": began - ready,
                "found_s": queued - ready,
                "begun_s": began - queued,
                "ran_s": ended - began,
            }
            for name, seconds in phases.items():
                if needed or name in ("begun_s", "ran_s"):
                    self.own.setdefault(name, []).append(round(seconds, 6))

    def _add(self, name: str, *samples: float) -> None:
        self.lists.setdefault(name, []).extend(samples)

    def as_answer(self) -> Answer:
        """All of them."""
        return self.lists | {"tasks": len(self.plan), "edges": self.plan.edges, "own": self.own}


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
