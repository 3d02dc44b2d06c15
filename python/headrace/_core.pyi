"""The native half of headrace. Names that start with an underscore are for the package's own Python."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, Generic, NoReturn, Self, TypeVar, final, overload

from _typeshed import SupportsItems
from typing_extensions import Buffer, disjoint_base

from headrace._kernel import Kernel as Kernel
from headrace._kernel import Offer as Offer
from headrace._order import depth_first as depth_first
from headrace._output import Output as Output
from headrace._remote import Agent as Agent
from headrace._remote import connect_client as connect_client
from headrace._remote import drain_broker as drain_broker
from headrace._remote import farewell_of as farewell_of
from headrace._remote import wait_over as wait_over
from headrace._worker import Worker as Worker
from headrace.graph import Graph as _PythonGraph
from headrace.options import Policy as _Policy

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

__version__: str
#: What it was built with: `release`, or `quick`, which is not for measuring.
PROFILE: str
STACKS_SIGNAL: int

# -- graph -------------------------------------------------------------------------------------------------------------

@final
class Node(Generic[_T_co]):
    """The handle to one task of a graph. It may stand anywhere in the arguments of later tasks, and in `keep`.

    Two nodes are equal if they stand for the same task.
    """

    @property
    def key(self) -> str:
        """The key of the task: `name-index`, or the one given by the option `key`."""

    @property
    def index(self) -> int:
        """Index of the task within its graph."""

    @property
    def graph(self) -> _PythonGraph:
        """The graph."""

    @property
    def predecessors(self) -> list[Node[Any]]:
        """The tasks that this one needs, each once, as nodes of the same graph."""

    def __iter__(self) -> Iterator[Node[Any]]: ...
    def _repr_html_(self) -> str: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: object, /) -> Self: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class Nodes(Sequence[Node[_T_co]]):
    """An immutable sequence of nodes of one graph.

    It may stand wherever a list of nodes may: in arguments (the function gets the list of their results), in `map`,
    `reduce` and `keep`.
    """

    @property
    def graph(self) -> _PythonGraph:
        """The graph."""

    @property
    def keys(self) -> list[str]:
        """The keys of the tasks, in order."""

    def index(self, node: object) -> int:  # type: ignore[override]
        """The position of a node; `ValueError` if it is not there."""

    def count(self, node: object) -> int:
        """How often a node is there: once or not at all."""

    @overload
    def __getitem__(self, place: int, /) -> Node[_T_co]: ...
    @overload
    def __getitem__(self, place: slice, /) -> Nodes[_T_co]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Node[_T_co]]: ...
    def __contains__(self, node: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: object, /) -> Self: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@disjoint_base
class Graph:
    """Base of `headrace.Graph`."""

    def __new__(cls, *, by_reference: bool = False) -> Self: ...
    def add(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Node[_T]:
        """Add the task `fn(*args, **kwargs)` and return its node.

        Args:
            fn: the function, or a task object with options.
            *args: for the function. Nodes of this graph may stand anywhere in them, at any depth.
            **kwargs: for the function, likewise.

        Raises:
            ArgumentNotPicklable: the function or an argument cannot travel; the text names the attribute at fault.
            GraphError: a node belongs to another graph, or the key is taken.
            UsageError: `fn` cannot be called, or is async.

        Cost: 0.1 to 0.2 microseconds for small arguments; a pickle for what has no short form. Buffers of 1 MiB or
        more, as of arrays, are held and not copied: they must not change until the graph was submitted.
        """

    def map(self, fn: Callable[..., _T], /, *iterables: Iterable[Any], **constants: Any) -> Nodes[_T]:
        """Add one task for each step through the iterables together, and return the nodes.

        Args:
            fn: the function, or a task object with options.
            *iterables: stepped through together, and equally long; what they yield are the positional arguments.
            **constants: keyword arguments that every task gets. One longer than 64 KiB becomes a task of its own, so
                that it travels once; one of 1 MiB or more goes into shared memory by itself.

        Raises:
            ArgumentNotPicklable: the function or an argument cannot travel; the text names the attribute at fault.
            GraphError: the iterables are not equally long, or one is a str, bytes, dict, set or node. Then nothing was
                added.

        Cost: as `add`, less a call a task; 0.01 microseconds for a `range`.
        """

    @property
    def by_reference(self) -> bool:
        """Whether arguments stay the objects that they are."""

    @property
    def nodes(self) -> Nodes[Any]:
        """All tasks in the order in which they were added."""

    @property
    def sinks(self) -> Nodes[Any]:
        """The tasks that no other task needs."""

    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[Node[Any]]: ...
    def __getitem__(self, key: Hashable, /) -> Node[Any]: ...
    def __contains__(self, item: object, /) -> bool: ...
    def _reduce(
        self, step: Callable[..., _T], nodes: Iterable[Node[Any]], arity: int, initial: tuple[Any] | None = None
    ) -> Node[_T]: ...
    def _fill(self, mapping: dict[Any, Any]) -> None: ...
    def _cull(self, graph: Graph, nodes: object) -> None: ...
    def _counts(self) -> tuple[int, int, int, int]: ...
    def _keep(self, keep: object = None) -> list[int]: ...
    def _predecessors(self, index: int) -> list[int]: ...
    def _name(self, index: int) -> str: ...
    def _key(self, index: int) -> str: ...
    def _inputs(self, index: int) -> list[Any]: ...
    @property
    def _has_policies(self) -> bool: ...
    def _again(
        self, graph: _PythonGraph, count: int, again: list[int], taken: list[tuple[int, ExternalRef]]
    ) -> None: ...
    def _hurried(self) -> list[int]: ...
    def _policy(self, index: int) -> tuple[_Policy, Callable[..., Any]] | None: ...
    def _bind(self, index: int, inputs: Sequence[Any], pack: Callable[..., _T]) -> tuple[Callable[..., Any], _T]: ...

@disjoint_base
class TopologicalSorter(Generic[_T]):
    """Base of `headrace.TopologicalSorter`."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, graph: SupportsItems[_T, Iterable[_T]] | None = None) -> None: ...
    def add(self, node: _T, *predecessors: _T) -> None:
        """Add a node and its predecessors, new ones included.

        Called again with the same node, it adds to its predecessors.

        Raises:
            TypeError: a node cannot be hashed.
            ValueError: `prepare` was called before.
        """

    def prepare(self) -> None:
        """Check for cycles; from now on nodes are passed out and none can be added."""

    def get_ready(self) -> tuple[_T, ...]:
        """Give every node that has become ready since the last call."""

    def done(self, *nodes: _T) -> None:
        """Mark nodes that `get_ready` gave as done.

        Raises:
            ValueError: a node was not added, not passed out, or is done already; or `prepare` was not called.
        """

    def is_active(self) -> bool:
        """Say whether more nodes are to come, or some that were passed out are not done."""

    def __bool__(self) -> bool: ...
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

def names_main(pickle: bytes) -> bool:
    """Say whether a pickle names anything of `__main__`."""

def try_pickle(value: object) -> BaseException | None:
    """Pickle `value` as an argument would be and throw the pickle away; give the error, if there is one."""

def cite(reference: object) -> tuple[Any, ...]:
    """Give what the `__reduce__` of a future or ref answers; an error where it is no part of an argument."""

def _dep(k: int) -> Any: ...

# -- client ------------------------------------------------------------------------------------------------------------

_State = tuple[
    tuple[int, int, int, int, int, int, int],
    tuple[int, int],
    list[tuple[int, int, int, int]],
    tuple[int, int, int, int, int, int, int],
    tuple[int, int, int, int, int, int],
    list[tuple[str, int]],
    tuple[int, int],
    tuple[int, int, int],
    list[tuple[str, bool, int, int]],
]

@final
class Block:
    """Bytes of a block of shared memory; it has the buffer protocol and nothing else."""

    def _private(self) -> Block:
        """Give the same bytes in a map of their own that may be written to; only the pages that are get copied."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Segment:
    """A piece of shared memory, mapped whole: the buffer protocol, a length in bytes, and a descriptor.

    It is from `Store.create` or `headrace.store.attach`. Its size is sealed and all its pages are allocated, so that no
    access fails. Whatever is made from it (a memoryview, an array) keeps the map; the memory is freed with the last map
    and descriptor of any process.
    """

    def fileno(self) -> int:
        """Give the descriptor, which is closed with this object. It is open for reading and writing."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __reduce__(self) -> NoReturn: ...
    @staticmethod
    def _create(nbytes: int) -> Segment: ...
    @staticmethod
    def _attach(fd: int, writable: bool) -> Segment: ...
    def _commit(self) -> None: ...
    def _write(self, offset: int, contents: Buffer) -> None: ...
    def _offset_of(self, contents: Buffer) -> int | None: ...

@final
class ClientCore:
    """A session of a client."""

    @staticmethod
    def embedded(
        *,
        workers: int,
        spares: int,
        offer: Offer,
        worker_environments: list[list[tuple[str, str]]],
        program: str,
        arguments: list[str],
        environment: list[tuple[str, str]],
        boot: bytes,
        libzmq: list[str],
        crash_limit: int,
        oom_limit: int,
        tasks_max: int | None,
        result_bytes_max: int,
        store_limit: int,
        spill_dir: str,
        spill_limit: int,
        grace_s: float,
        is_open: bool,
        network: tuple[str, str, str, list[tuple[str, str]]] | None,
        places: int,
    ) -> ClientCore:
        """Start an embedded broker with its workers, and a session with it."""

    @staticmethod
    def local(workers: int, offer: Offer) -> ClientCore:
        """Open a session whose tasks this process runs by itself."""

    @property
    def session(self) -> int:
        """Number of the session in this process."""

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that made the client."""

    @property
    def listens_at(self) -> tuple[Path, str | None]:
        """Where the broker that this process has started listens: its directory, and in the network."""

    def check_process(self) -> None:
        """Raise `ForkedClientError` in a forked child."""

    def call(self, function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, str]:
        """Submit a single call; give its index among the calls, and its key."""

    def replace(self, graph: Graph, result: int) -> None:
        """Submit a graph in the place of the task that has this client; a task's result will be its own."""

    def put(self, value: object) -> tuple[int, str]:
        """Put a value where tasks can take it; give its index among the calls, and its key."""

    def note_fork(self) -> None:
        """To be called before a fork."""

    def cancel(self, run: int, indices: list[int] | None = None, spare_leased: bool = False) -> None:
        """Cancel tasks of a run with all that depends on them; None is the whole run. Perhaps none that is leased."""

    def failure(self) -> str | None:
        """Tell why the session has ended, if the client did not end it."""

    def unfinished(self) -> tuple[list[int], int]:
        """Give the numbers of the runs that have not ended, and how many calls have not."""

    def wait_idle(self) -> None:
        """Wait until every run and every call has ended, or the session is over."""

    def query(self, run: int) -> _State | None:
        """Ask the broker for the state of a run; None if the session is over."""

    def why(self, run: int, index: int, stacks: bool) -> tuple[int, int | None, int, int, int, str, str] | None:
        """Ask the broker where a task is, and maybe for the stacks of its process; None if the session is over."""

    def watch(self, number: int, run: int, index: int | None = None, seen: int | None = None) -> bool:
        """Have `wait_watches` tell `number` once something has happened; False if it has already."""

    def wait_watches(self) -> list[int]:
        """Wait for something that is watched; give the numbers of the watches, each once."""

    def wait_logs(self) -> tuple[list[tuple[int, int, bytes]] | None, int]:
        """Wait for lines that tasks wrote, as (worker, stream, text); None once the session is over.

        Besides, give the bytes that were dropped since its start because nobody took them.
        """

    def log(self, run: int, index: int) -> tuple[bytes, int] | None:
        """Give the end of what a task has written, and how many bytes came before; None in a local session."""

    def leave(self) -> None:
        """Tell the broker that the session ends, and wait for nothing."""

    def close(self) -> None:
        """End the session, and the embedded broker with its workers."""

    def wait_alone(self) -> None:
        """Wait, after `close` at the interpreter's end, until no other thread is in native code for this session."""

    def set_stall_check(self, check: Callable[[int | None, int | None], None]) -> None:
        """Have waits without end ask now and then whether anything can go on."""

    def set_helper(self, helper: Callable[[], bool | None]) -> None:
        """Have waits run tasks on the waiting thread, which says whether there was one; None if none may run there."""

    def open_call(self, name: str, key: str | None = None) -> tuple[int, str]:
        """Open a row for a single call of a local session; give its index and its key."""

    def settle(self, run: int, index: int, value: object, error: BaseException | None = None) -> None:
        """Enter how a task of a local session ended."""

    def finish(self, run: int) -> None:
        """Note that every task of a run of a local session has ended."""

    def take_hold_changes(self) -> list[tuple[int, int | None, int]]:
        """Give the changes of what is held since the last call, as (run, index, change)."""

@disjoint_base
class RunCore:
    """A submitted graph. Base of `headrace.Run`."""

    def __new__(
        cls,
        client: object,
        core: ClientCore,
        graph: _PythonGraph,
        keep: object,
        terms: tuple[int, int, bool] = ...,
        anew: _PythonGraph | None = None,
    ) -> RunCore: ...
    @property
    def number(self) -> int:
        """Number of the run in its session."""

    @property
    def graph(self) -> _PythonGraph:
        """The graph that was submitted."""

    @overload
    def result(self, node: Node[_T], timeout: float | None = None) -> _T: ...
    @overload
    def result(self, node: object = None, timeout: float | None = None) -> Any:
        """Give the result of a kept task; wait for it at most `timeout` seconds."""

    def results(self, timeout: float | None = None) -> list[Any]:
        """Give the results of all kept tasks in the order of `keep`; wait at most `timeout` seconds for all of them."""

    def done(self) -> bool:
        """Say whether every task has ended."""

    def release(self) -> None:
        """Let go of the results: they can no longer be read here. Refs keep theirs."""

    @property
    def _tasks(self) -> int: ...
    def _index(self, node: object) -> int: ...
    def _ending(self, index: int) -> BaseException | None: ...
    @property
    def _kept(self) -> int: ...
    @property
    def _keep(self) -> list[int]: ...
    def _wait_end(self, timeout: float | None = None) -> bool: ...
    def _next_arrival(self, position: int, timeout: float | None = None) -> tuple[int, int] | None: ...
    def _outcome(self, index: int) -> tuple[Any, BaseException | None]: ...
    def _node(self, index: int) -> Node[Any]: ...
    def _counts(self) -> tuple[int, int, int, int, int] | None: ...
    def _ended_badly(self) -> list[int]: ...
    def _plan_again(self) -> tuple[list[int], list[int]]: ...
    def _wait_outcome(self, index: int, timeout: float | None = None) -> tuple[Any, BaseException | None]: ...
    def _hold(self, node: object) -> tuple[int, str]: ...
    def _release_one(self, index: int) -> None: ...

@disjoint_base
class ExternalRef:
    """A result of a session, held while this object lives. Base of futures and refs."""

    def __new__(cls, core: ClientCore, run: int, index: int, *_rest: object) -> ExternalRef: ...
    @property
    def session(self) -> int:
        """Number of the client's session."""

    @property
    def run(self) -> int:
        """Number of the run; 0 for single calls."""

    @property
    def index(self) -> int:
        """Index of the task within the run."""

    def _arrived(self) -> bool: ...
    def _wait_arrival(self, timeout: float | None = None) -> bool: ...
    def _outcome(self, key: str) -> tuple[Any, BaseException | None]: ...

def end_brokers() -> None:
    """End every broker that still runs in this process; called at the interpreter's end."""

def forget_parent() -> None:
    """Make every client of the parent unusable in a forked child."""
