"""joblib on headrace: import this, then `parallel_config(backend="headrace")`. So scikit-learn runs on it as well."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.parallel import BatchedCalls

import headrace
from headrace.integrations._joblib_clients import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    Mode = Literal["processes", "threads"]

#: Arguments of this size or more are put into shared memory once for all calls of a `Parallel`.
SHARED_BYTES_MIN = 1 << 20

#: Types of arguments that are neither arrays nor frames.
NEVER_LARGE = frozenset((type(None), bool, int, float, complex, str, bytes, tuple, list, dict))

#: How many times as many calls as the last one a batch may have.
GROWTH_MAX = 8


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
    _effective_batch_size: int  # of joblib's mixin

    def __init__(self, client: headrace.Client | None = None, mode: Mode = "processes", **options: Any) -> None:
        super().__init__(**options)
        self._given = client
        self._mode = mode
        self.uses_threads = self.supports_sharedmem = mode == "threads"
        self._client: Any = client
        #: Batches that have not ended, each with its `Parallel`; and who waits until there are none, or one has failed.
        self._open: dict[Future[Any], Any] = {}
        self._ends = threading.Condition()
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
            clients.give_back(self)
            self._client = clients.take(self, n_jobs, self._mode, env, first)
        return n_jobs

    def compute_batch_size(self) -> int:
        """Say how many calls the next batch shall have, as joblib does, which doubles their number at most."""
        before, took_s = self._effective_batch_size, self._smoothed_batch_duration
        size: int = super().compute_batch_size()
        if size > before:
            ideal = 2 * int(before * self.MIN_IDEAL_BATCH_DURATION / took_s)
            size = self._effective_batch_size = max(size, min(ideal, GROWTH_MAX * before))
        return size

    def submit(self, func: BatchedCalls, callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Start a batch of calls; the callback comes once, however it ends. What cannot travel is its failure."""
        future: Future[Any]
        try:
            items = func.items
            if self._client.mode == "processes" and may_be_large(items):
                items = [(fn, tuple(map(self._share, args)), self._share_all(kwargs)) for fn, args, kwargs in items]
            future = self._client.call(run_batch, items, func._backend, func._n_jobs)
        except Exception as error:  # joblib would wait for ever if this came out of a callback
            future = Future()
            future.set_exception(error)
        self._open[future] = getattr(callback, "parallel", None)
        future.add_done_callback(partial(self._end, callback))
        return future

    def _end(self, callback: Callable[[Any], object] | None, future: Future[Any]) -> None:
        """Let joblib have what came of a batch, and start the next one."""
        try:
            if callback is not None:
                callback(future)
        finally:
            with self._ends:
                parallel = self._open.pop(future, None)
                if parallel is not None and is_over(parallel):
                    self._ends.notify_all()

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Wait until all is there if all is wanted at once: joblib itself would look every 10 ms."""
        with self._ends:
            parallels = set(self._open.values())
            if len(parallels) == 1:
                (parallel,) = parallels
                if not parallel.return_generator and parallel.timeout is None:
                    self._ends.wait_for(partial(is_over, parallel))
        yield

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Give what a batch returned, or raise what it did."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what has not ended of a `Parallel` that aborts, also what runs."""
        for future, parallel in list(self._open.items()):
            if parallel is None or parallel._aborting:
                future.cancel()

    def stop_call(self) -> None:
        """Let go of what was put into shared memory."""
        self._shared.clear()

    def terminate(self) -> None:
        """Let go of everything but the workers, which the next `Parallel` finds warm."""
        self._shared.clear()
        clients.give_back(self)
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


def is_over(parallel: Any) -> bool:
    """Say whether all calls of a `Parallel` have ended, or one has failed. Not true within its callbacks."""
    return bool(parallel._aborting or parallel.n_completed_tasks == parallel.n_dispatched_tasks)


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


register()  # workers know it by that
