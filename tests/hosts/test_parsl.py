"""Parsl's apps on headrace."""

import os

import pytest

parsl = pytest.importorskip("parsl")

from parsl.config import Config  # noqa: E402
from parsl.executors.errors import InvalidResourceSpecification  # noqa: E402

import headrace as hr  # noqa: E402
from headrace.integrations.parsl import HeadraceExecutor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=["processes", "threads"])
def loaded(request, tmp_path):
    with parsl.load(Config(executors=[HeadraceExecutor(max_workers=2, mode=request.param)], run_dir=str(tmp_path))):
        yield request.param


def inc(x):
    return x + 1


def inc_as(x, parsl_resource_specification=None):
    return x + 1


def end_worker():
    os._exit(3)


def test_apps_take_each_others_results(loaded):
    app = parsl.python_app(inc)
    assert app(app(app(1))).result(30) == 4
    assert [future.result(30) for future in map(app, range(100))] == list(range(1, 101))


def test_shell_apps_run(loaded, tmp_path):
    @parsl.bash_app
    def write(path):
        return f"echo here > {path}"

    assert write(str(tmp_path / "file")).result(30) == 0
    assert (tmp_path / "file").read_text() == "here\n"


def test_what_a_specification_may_ask_for(loaded):
    app = parsl.python_app(inc_as)
    assert app(1, parsl_resource_specification={"priority": 3, "timeout_s": 20}).result(30) == 2
    with pytest.raises(InvalidResourceSpecification):
        app(1, parsl_resource_specification={"cores": 1}).result(30)


def test_the_death_of_a_worker_fails_its_app_alone(tmp_path):
    with parsl.load(Config(executors=[HeadraceExecutor(max_workers=2)], run_dir=str(tmp_path))):
        with pytest.raises(hr.WorkerDied):
            parsl.python_app(end_worker)().result(30)
        assert parsl.python_app(inc)(1).result(30) == 2
