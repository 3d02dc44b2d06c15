"""The directory of a broker: where it may lie, who removes it, and that no two brokers share one."""

import os
import re
import signal
import time

import pytest
from outside import END_S, Home, Program, script

import headrace as hr

START = """
import headrace as hr
from client_tasks import inc
client = hr.Client(workers=1)
print(client.call(inc, 1).result(), flush=True)
sys.stdin.read()
client.close()
"""


def test_brokers_in_one_place_have_directories_of_their_own_and_remove_nobody_elses():
    with Home() as home, Program(home, *script(START)) as one, Program(home, *script(START)) as two:
        assert (one.line(), two.line()) == ("2\n", "2\n")
        first, second = home.run_dirs()
        for directory in (first, second):
            assert re.fullmatch("headrace-[0-9a-f]{8}", directory.name)
            assert directory.stat().st_mode & 0o777 == 0o700
            assert sorted(path.name for path in directory.iterdir()) == ["broker", "lock"]
        one.process.kill()
        assert one.ended_within(END_S, time.monotonic())
        assert len(home.run_dirs()) == 2, "nobody has looked"
        with Program(home, *script(START)) as three:
            assert three.line() == "2\n"
            assert len(home.run_dirs()) == 2, "the stale one is gone, and no other"
            for program in (two, three):
                assert program.end()[0] == 0
        assert home.run_dirs() == []


def test_a_stopped_broker_is_not_taken_for_a_dead_one():
    with Home() as home, Program(home, *script(START)) as one:
        assert one.line() == "2\n"
        os.kill(one.pid, signal.SIGSTOP)
        with Program(home, *script(START)) as two:
            assert two.line() == "2\n"
            assert len(home.run_dirs()) == 2
            assert two.end()[0] == 0
        os.kill(one.pid, signal.SIGCONT)
        assert one.end() == (0, "2\n", "")


def make_open(path):
    path.chmod(0o755)


def make_link(path):
    elsewhere = path.with_name(f"{path.name}-elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def make_file(path):
    path.rmdir()
    path.touch()


def give_away(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(path, 54_321, -1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (make_open, "has mode 0755, and a broker's directory needs 0700"),
        (make_link, "is a symbolic link"),
        (make_file, "is a file"),
        (give_away, "belongs to user 54321"),
    ],
)
def test_a_place_that_is_not_private_is_refused_with_the_remedy(spoil, words, tmp_path, monkeypatch):
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    spoil(place)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    with pytest.raises(hr.InfraError, match=words) as caught:
        hr.Client(workers=1)
    assert "XDG_RUNTIME_DIR" in str(caught.value)
    assert place.is_file() or list(place.iterdir()) == []


def test_a_place_that_is_too_deep_is_refused_with_its_length(tmp_path, monkeypatch):
    place = tmp_path / ("d" * 100)
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    with pytest.raises(hr.InfraError, match=f"has {len(str(place))} bytes"):
        hr.Client(workers=1)
