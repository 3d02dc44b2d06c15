"""The limit up to which results travel in frames, set to something else by the environment of the workers."""

import pytest

np = pytest.importorskip("numpy")

from large_tasks import filled, lies_in_block, same  # noqa: E402

import headrace as hr  # noqa: E402

VARIABLE = "HEADRACE_INLINE_BYTES_MAX"
TIMEOUT_S = 30
#: More than one lease frame takes beside other values.
LONG = 5_000_000


def handed_over(limit, items):
    """Hand an array from worker to worker; whether it lay in a block there, and what the client gets."""
    with hr.Client(workers=2, env={} if limit is None else {VARIABLE: limit}) as client:
        graph = hr.Graph()
        array = graph.add(hr.task(filled, worker=0), 3.0, items)
        number = graph.add(hr.task(same, worker=0), 7)
        looked = graph.add(hr.task(lies_in_block, worker=1), array)
        again = graph.add(hr.task(same, worker=1), array)
        run = client.submit(graph, keep=[array, number, looked, again])
        assert run.result(number, timeout=TIMEOUT_S) == 7
        assert np.array_equal(run.result(again, timeout=TIMEOUT_S), np.full(items, 3.0))
        return run.result(looked), run.result(array), run.statistics().store.owned


@pytest.mark.parametrize("limit", ["none", "1000000000"])
def test_long_results_can_travel_in_frames(limit):
    in_block, array, owned = handed_over(limit, LONG)
    assert not in_block
    assert array.flags.writeable, "it is the client's own"
    assert np.array_equal(array, np.full(LONG, 3.0))
    assert owned == 0


@pytest.mark.parametrize(("limit", "items", "expected"), [("512", 128, True), (None, 128, False), (None, LONG, True)])
def test_short_results_can_lie_in_blocks(limit, items, expected):
    in_block, array, owned = handed_over(limit, items)
    assert in_block is expected
    assert array.flags.writeable is not expected
    assert np.array_equal(array, np.full(items, 3.0))
    assert (owned > 0) is expected


@pytest.mark.parametrize("limit", ["100", "64k", "", "-1"])
def test_a_wrong_limit_is_named(limit, capfd):
    with hr.Client(workers=1, env={VARIABLE: limit}) as client, pytest.raises(hr.InfraError, match=VARIABLE):
        client.call(same, 1).result(timeout=TIMEOUT_S)
