"""joblib on headrace: import this, then `parallel_config(backend="headrace")`. So scikit-learn runs on it as well."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.parallel import BatchedCalls

import headrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.client import Mode

#: Arguments of this size or more are put into shared memory once for all calls of a `Parallel`.
SHARED_BYTES_MIN = 1 << 20

#: Types of arguments that are neither arrays nor frames.
NEVER_LARGE = frozenset((type(None), bool, int, float, complex, str, bytes, tuple, list, dict))


def register(name: str = "headrace", make_default: bool = False) -> None:
    """Let joblib know the backend under a name."""
    register_parallel_backend(name, HeadraceBackend, make_default=make_default)


class HeadraceBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """A backend of joblib.

    Args:
        client: a client to run on; by default one that all such backends with as many jobs share.
        mode: "processes" or "threads", for that one.
        nesting_level, inner_max_num_threads: joblib's own.

    Source: `joblib.parallel.ParallelBackendBase`, joblib 1.6.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(self, client: headrace.Client | None = None, mode: Mode = "processes", **options: Any) -> None:
        super().__init__(**options)
        self._given = client
        self._mode = mode
        self.uses_threads = self.supports_sharedmem = mode == "threads"
        self._client: Any = client
        self._open: set[headrace.Future[Any]] = set()
        #: What was put into shared memory, by the ids of objects, with these, so that no other gets the same id.
        self._shared: dict[int, tuple[Any, Any]] = {}

    def __reduce__(self) -> Any:
        return HeadraceBackend, (None, self._mode)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Give the number of workers for a wish of the user: negative numbers count back from all cores."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        cores = len(os.sched_getaffinity(0)) if self._given is None else self._given.workers
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cores + 1 + n_jobs, 1)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Get ready for a `Parallel`. Each worker calls its option `initializer` with its `initargs` first."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        if self._given is None:
            options = {**self.backend_kwargs, **options}
            first = options.get("initializer"), tuple(options.get("initargs", ()))
            env = {} if self._mode == "threads" else self._prepare_worker_env(n_jobs)
            _shared.give_back(self)
            self._client = _shared.take(self, n_jobs, self._mode, env, first)
        return n_jobs

    def submit(self, func: BatchedCalls, callback: Callable[[Any], object] | None = None) -> headrace.Future[Any]:
        """Start a batch of calls; the callback comes once, however it ends."""
        items = func.items
        if self._client.mode == "processes" and may_be_large(items):
            items = [(fn, tuple(map(self._share, args)), self._share_all(kwargs)) for fn, args, kwargs in items]
        future: headrace.Future[Any] = self._client.call(run_batch, items, func._backend, func._n_jobs)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: headrace.Future[Any]) -> Any:
        """Give what a batch returned, or raise what it did."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what has not ended, also what runs."""
        for future in list(self._open):
            future.cancel()

    def stop_call(self) -> None:
        """Let go of what was put into shared memory."""
        self._shared.clear()

    def terminate(self) -> None:
        """Let go of everything but the workers, which the next `Parallel` finds warm."""
        self._shared.clear()
        _shared.give_back(self)
        self.reset_batch_stats()

    def _share_all(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: self._share(value) for name, value in kwargs.items()}

    def _share(self, value: Any) -> Any:
        if size_of(value) < SHARED_BYTES_MIN:
            return value
        known = self._shared.get(id(value))
        if known is None:
            known = self._shared[id(value)] = value, self._client.put(value)
        return known[1]


def run_batch(items: list[Any], backend: Any, n_jobs: int | None) -> list[Any]:
    """Run a batch of calls in a worker, with joblib's backend for calls of `Parallel` in them."""
    return BatchedCalls(items, (backend, n_jobs), None, None)()  # type: ignore[no-any-return]


def may_be_large(items: list[Any]) -> bool:
    """Say whether calls have arguments that may be arrays or frames; looking at each closely takes ten times longer."""
    kinds = {type(value) for _, args, _ in items for value in args}
    kinds.update(type(value) for _, _, kwargs in items if kwargs for value in kwargs.values())
    return not kinds <= NEVER_LARGE


def size_of(value: Any) -> int:
    """Give the bytes of an array or a frame; 0 for what is neither."""
    size = getattr(value, "nbytes", 0)
    if not size and (pandas := sys.modules.get("pandas")) and isinstance(value, pandas.DataFrame):
        size = value.memory_usage(index=False).sum()
    return int(size) if isinstance(size, int) or hasattr(size, "__index__") else 0


class Shared:
    """The clients of this process that backends share, by what is wanted of them, each with how many use it now.

    One that nobody uses stays for the next `Parallel` that wants the same, until another one is wanted.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: What was wanted, which may have no hash; the client; and its users.
        self._clients: list[tuple[Any, headrace.Client, list[object]]] = []

    def take(
        self, user: object, workers: int, mode: Mode, env: dict[str, str], first: tuple[Any, ...]
    ) -> headrace.Client:
        """Give the client with such workers; to be given back."""
        wanted = (os.getpid(), workers, mode, tuple(sorted(env.items())), first)
        with self.lock:
            found = next((known for known in self._clients if known[0] == wanted), None)
            if found is None:
                for idle in [known for known in self._clients if not known[2]]:
                    self._clients.remove(idle)
                    idle[1].close(wait=False)
                initializer, initargs = first
                setup = None if initializer is None else partial(initializer, *initargs)
                client = headrace.Client(workers=workers, mode=mode, env=env, setup=setup)
                found = wanted, client, []
                self._clients.append(found)
            found[2].append(user)
            return found[1]

    def give_back(self, user: object) -> None:
        """Use a client no more."""
        with self.lock:
            for _, _, users in self._clients:
                if user in users:
                    users.remove(user)

    def close(self) -> None:
        """End all of them."""
        with self.lock:
            clients, self._clients = self._clients, []
        for _, client, _ in clients:
            client.close(wait=False, cancel=True)


_shared = Shared()
atexit.register(_shared.close)
os.register_at_fork(after_in_child=_shared.lock._at_fork_reinit)  # type: ignore[attr-defined]
register()  # workers know it by that
