"""Views in garbage keep no memory from anybody who waits for some, in whatever process they are."""

import gc

import pytest

np = pytest.importorskip("numpy")

from garbage_tasks import filled_and_noted, in_a_list, in_an_exception, of_its_own  # noqa: E402
from large_tasks import filled, same, total  # noqa: E402
from store_watch import MIB, TIMEOUT_S, eventually, flush, store_of, value_of  # noqa: E402

import headrace as hr  # noqa: E402

#: 4 MiB, of which seven fit into the budget.
ITEMS = MIB // 2
LIMIT = 32 * MIB
LEAVE = [in_a_list, in_an_exception]


@pytest.fixture
def client():
    gc.collect()
    with hr.Client(workers=2, store_limit=LIMIT, spill_limit=0) as client:
        yield client


@pytest.mark.parametrize("leave", LEAVE)
def test_garbage_of_tasks_gives_way(client, leave):
    for number in range(30):
        made = client.call(filled, float(number), ITEMS)
        assert value_of(client, leave, made) == number


@pytest.mark.parametrize("leave", LEAVE)
def test_garbage_of_the_client_gives_way(client, leave):
    for number in range(20):
        assert leave(value_of(client, filled, float(number), ITEMS)) == number


def test_garbage_of_a_worker_without_work_gives_way_to_another(client):
    for number in range(6):
        value_of(client, in_a_list, client.call(filled, float(number), ITEMS), worker=0)
    assert value_of(client, total, client.call(hr.task(filled, worker=1), 1.0, 6 * ITEMS)) == 6 * ITEMS
    flush(client)
    for _ in range(6):
        value_of(client, of_its_own, ITEMS, worker=0)
    assert value_of(client, total, client.call(hr.task(filled, worker=1), 1.0, 6 * ITEMS)) == 6 * ITEMS


def test_garbage_of_a_client_that_does_not_wait_for_anything_gives_way(client, tmp_path):
    for number in range(6):
        in_a_list(value_of(client, filled, float(number), ITEMS))
    flush_without_collection(client)
    late = client.call(filled_and_noted, 1.0, 6 * ITEMS, str(tmp_path / "made"))
    assert eventually((tmp_path / "made").exists)
    assert late.result(timeout=TIMEOUT_S)[0] == 1.0


def test_what_is_put_finds_the_room_of_garbage(client):
    for number in range(20):
        ref = client.put(np.full(ITEMS, float(number)))
        assert in_a_list(value_of(client, same, ref)) == number
        del ref
        flush_without_collection(client)


def test_views_that_somebody_has_are_no_garbage(client):
    views = [value_of(client, filled, float(number), ITEMS) for number in range(7)]
    with pytest.raises(hr.StoreFull, match="views keep"):
        value_of(client, filled, 9.0, 4 * ITEMS)
    assert [(view.min(), view.max()) for view in views] == [(float(number),) * 2 for number in range(7)]
    del views
    flush(client)
    assert value_of(client, filled, 9.0, 4 * ITEMS)[0] == 9.0


def test_a_finalizer_that_wants_memory_does_not_hang_who_waits_for_some(client):
    class Greedy:
        told = None

        def __init__(self):
            self.me = self

        def __del__(self):
            try:
                client.put(np.ones(7 * ITEMS))
            except hr.StoreFull as error:
                Greedy.told = str(error)

    held = [value_of(client, filled, float(number), ITEMS) for number in range(7)]
    gc.disable()
    try:
        Greedy()
        with pytest.raises(hr.StoreFull, match="needs"):
            client.put(np.ones(7 * ITEMS))
    finally:
        gc.enable()
    assert "this thread waits for shared memory already" in Greedy.told
    assert len(held) == 7


def flush_without_collection(client):
    """Let the broker know which results were let go of."""
    client.submit(hr.Graph()).statistics()
    assert store_of(client).limit == LIMIT


def test_garbage_gives_way_in_a_store_by_itself():
    from headrace import store

    with store.Store(limit=16 * MIB) as shared:
        for number in range(20):
            assert in_a_list(shared.put(np.full(ITEMS, float(number))).get()) == number
        views = [shared.put(np.full(ITEMS, float(number))).get() for number in range(3)]
        with pytest.raises(hr.StoreFull):
            shared.put(np.ones(2 * ITEMS))
        assert [view[0] for view in views] == [0.0, 1.0, 2.0]
