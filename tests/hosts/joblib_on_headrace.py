"""A plugin for pytest: joblib's own tests run on headrace wherever they ask for loky, its backend by default.

    python -m pytest -p joblib_on_headrace .../site-packages/joblib/test/test_parallel.py

What deviates by design is expected to fail, and must (`DEVIATIONS`).
"""

import joblib._parallel_backends
import joblib.parallel
import pytest

from headrace.integrations.joblib import HeadraceBackend


class LokyBackend(HeadraceBackend):
    """The tests look for this name."""

    default_n_jobs = 1


joblib.parallel.BACKENDS["loky"] = LokyBackend
joblib._parallel_backends.LokyBackend = joblib.parallel.LokyBackend = LokyBackend

WARNS = "it wants a warning of loky's about loky's own limits, which are not ours"
MEMMAP = "it wants files of numpy.memmap; large arguments lie in shared memory here"
SHUT = "it wants loky's error about a generator that shuts its workers down; ours go on, and both generators work"
DEEP = "an error of the deepest recursion is told by its text"
#: Tests that fail by design, by the beginnings of their names, and why.
DEVIATIONS = {
    "test_nested_parallel_warnings[loky-multiprocessing-True]": WARNS,
    "test_nested_parallel_warnings[multiprocessing-loky-True]": WARNS,
    "test_nested_parallel_warnings[threading-loky-True]": WARNS,
    "test_auto_memmap_on_arrays_from_generator[loky]": MEMMAP,
    "test_memmapping_leaks[loky]": MEMMAP,
    **{
        f"test_multiple_generator_call_separated_gc[{first}-{second}-loky-True]": SHUT
        for first in ("generator", "generator_unordered")
        for second in ("generator", "generator_unordered")
    },
    "test_thread_bomb_mitigation[loky-parallel_config]": DEEP,
    "test_thread_bomb_mitigation[loky-parallel_backend]": DEEP,
    "test_parallel_pickling": "it wants loky's words for an argument that cannot travel",
    "test_error_capture[loky]": "a task's KeyboardInterrupt is told as a TaskError: nobody has interrupted the caller",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in DEVIATIONS:
            why = DEVIATIONS[item.name]
            # How deep the deepest recursion is depends on what is installed.
            item.add_marker(pytest.mark.xfail(reason=why, strict=why is not DEEP))
