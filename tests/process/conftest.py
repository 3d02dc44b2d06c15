"""What tests with real processes share."""

import pytest


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
