"""Kedro's pipelines on headrace."""

import pytest

kedro = pytest.importorskip("kedro")

from kedro.framework.hooks import _create_hook_manager  # noqa: E402
from kedro.framework.hooks.markers import hook_impl  # noqa: E402
from kedro.io import DataCatalog, MemoryDataset, SharedMemoryDataCatalog  # noqa: E402
from kedro.pipeline import node, pipeline  # noqa: E402

from headrace.integrations.kedro import HeadraceParallelRunner, HeadraceRunner  # noqa: E402

KINDS = {"threads": (HeadraceRunner, DataCatalog), "processes": (HeadraceParallelRunner, SharedMemoryDataCatalog)}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def double(x):
    return 2 * x


def add(*parts):
    return sum(parts)


def divide(x):
    return x / 0


def test_a_diamond_gives_its_outputs(kind):
    runner, catalog_of = kind
    diamond = pipeline(
        [
            node(double, "a", "b", name="b"),
            node(double, "b", "c", name="c"),
            node(double, "b", "d", name="d"),
            node(add, ["c", "d"], "e", name="e"),
        ]
    )
    runner = runner(max_workers=2)  # its manager has the data
    outputs = runner.run(diamond, catalog_of({"a": MemoryDataset(1)}))
    assert {name: data.load() for name, data in outputs.items()} == {"e": 8}


def test_a_thousand_nodes_run(kind):
    runner, catalog_of = kind
    rows = [[node(double, f"x{n}", f"y{n}", name=f"y{n}") for n in range(400)]]
    rows += [[node(add, [f"y{n}", f"y{n + 1}"], f"z{n}", name=f"z{n}") for n in range(0, 400, 2)]]
    catalog = catalog_of({f"x{n}": MemoryDataset(n) for n in range(400)})
    runner = runner(max_workers=2)
    outputs = runner.run(pipeline([*rows[0], *rows[1]]), catalog)
    assert [outputs[f"z{n}"].load() for n in range(0, 400, 2)] == [4 * n + 2 for n in range(0, 400, 2)]


def test_what_a_node_raises_is_raised_and_how_to_resume_is_told(kind, caplog):
    runner, catalog_of = kind
    chain = pipeline(
        [
            node(double, "a", "b", name="first"),
            node(divide, "b", "c", name="second"),
            node(double, "c", "d", name="third"),
        ]
    )
    with pytest.raises(ZeroDivisionError):
        runner(max_workers=2).run(chain, catalog_of({"a": MemoryDataset(1)}))
    assert "There are 2 nodes that have not run" in caplog.text


def test_hooks_run_on_threads():
    heard = []

    class Hooks:
        @hook_impl
        def after_node_run(self, node):
            heard.append(node.name)

    hooks = _create_hook_manager()
    hooks.register(Hooks())
    both = pipeline([node(double, "a", "b", name="one"), node(double, "b", "c", name="two")])
    HeadraceRunner(max_workers=2).run(both, DataCatalog({"a": MemoryDataset(1)}), hook_manager=hooks)
    assert heard == ["one", "two"]
