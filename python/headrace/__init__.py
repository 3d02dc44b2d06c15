"""headrace: graphs of tasks in Python, resolved in Rust, pushed to worker processes over ZeroMQ."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError(
        f"headrace runs on Linux only, and this is {sys.platform}: its workers need memfd, pidfd and eventfd. "
        "Run it in a Linux container or virtual machine."
    )

from headrace._core import Node, Nodes, __version__
from headrace.current import current, current_client  # now, or the module of that name would take a function's place
from headrace.graph import Graph
from headrace.task import Task, task

# Type checkers take this for true. The module typing, which has it, costs as much to import as all of this package.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from headrace._core import depth_first as depth_first
    from headrace.agent_process import AgentProcess as AgentProcess
    from headrace.client import Client as Client
    from headrace.client import run as run
    from headrace.errors import ArgumentNotPicklable as ArgumentNotPicklable
    from headrace.errors import AuthError as AuthError
    from headrace.errors import BrokerLost as BrokerLost
    from headrace.errors import CancelledError as CancelledError
    from headrace.errors import ForkedClientError as ForkedClientError
    from headrace.errors import GraphError as GraphError
    from headrace.errors import HeadraceError as HeadraceError
    from headrace.errors import InfraError as InfraError
    from headrace.errors import NoSuitableWorker as NoSuitableWorker
    from headrace.errors import NotKept as NotKept
    from headrace.errors import PoisonTask as PoisonTask
    from headrace.errors import ResultLost as ResultLost
    from headrace.errors import ResultNotPicklable as ResultNotPicklable
    from headrace.errors import ResultReleased as ResultReleased
    from headrace.errors import ResultTooLarge as ResultTooLarge
    from headrace.errors import Stalled as Stalled
    from headrace.errors import StoreFull as StoreFull
    from headrace.errors import TaskError as TaskError
    from headrace.errors import TaskTimeout as TaskTimeout
    from headrace.errors import UpstreamFailed as UpstreamFailed
    from headrace.errors import UsageError as UsageError
    from headrace.errors import VersionMismatch as VersionMismatch
    from headrace.errors import WorkerDied as WorkerDied
    from headrace.errors import WorkerLost as WorkerLost
    from headrace.errors import WorkerOOM as WorkerOOM
    from headrace.executor import BrokenWorkers as BrokenWorkers
    from headrace.executor import Executor as Executor
    from headrace.futures import Future as Future
    from headrace.gathering import gather as gather
    from headrace.keys import SessionKeys as SessionKeys
    from headrace.memory import copy as copy
    from headrace.memory import empty as empty
    from headrace.refs import Ref as Ref
    from headrace.runs import Run as Run
    from headrace.sorting import TopologicalSorter as TopologicalSorter
    from headrace.standalone import Broker as Broker

#: Where each name lives that is imported when it is first used.
_LAZY = {
    "AgentProcess": "headrace.agent_process",
    "BrokenWorkers": "headrace.executor",
    "Broker": "headrace.standalone",
    "Client": "headrace.client",
    "Executor": "headrace.executor",
    "Future": "headrace.futures",
    "Ref": "headrace.refs",
    "Run": "headrace.runs",
    "SessionKeys": "headrace.keys",
    "TopologicalSorter": "headrace.sorting",
    "copy": "headrace.memory",
    "depth_first": "headrace._core",
    "empty": "headrace.memory",
    "gather": "headrace.gathering",
    "run": "headrace.client",
    **dict.fromkeys(
        [
            "ArgumentNotPicklable",
            "AuthError",
            "BrokerLost",
            "CancelledError",
            "ForkedClientError",
            "GraphError",
            "HeadraceError",
            "InfraError",
            "NoSuitableWorker",
            "NotKept",
            "PoisonTask",
            "ResultLost",
            "ResultNotPicklable",
            "ResultReleased",
            "ResultTooLarge",
            "Stalled",
            "StoreFull",
            "TaskError",
            "TaskTimeout",
            "UpstreamFailed",
            "UsageError",
            "VersionMismatch",
            "WorkerDied",
            "WorkerLost",
            "WorkerOOM",
        ],
        "headrace.errors",
    ),
}

__all__ = ["Graph", "Node", "Nodes", "Task", "__version__", "current", "current_client", "task", *_LAZY]


if not TYPE_CHECKING:  # type checkers shall know the names, and no others

    def __getattr__(name: str) -> Any:
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
