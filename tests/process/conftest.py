"""What tests with real processes share."""

import subprocess

import pytest
from outside import command_line


@pytest.fixture
def path(tmp_path):
    """Where tasks note their effects."""
    return str(tmp_path / "effects")


@pytest.fixture
def gate(tmp_path):
    """What tasks wait for that hold a worker; opened at the end, if not before."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keys of a broker, and of those who may use it."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    subprocess.run(command_line("keygen", path), check=True, capture_output=True)
    return path
