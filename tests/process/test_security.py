"""Brokers in the network: who comes in, who does not, and what it costs that some try. Real processes, real sockets."""

import contextlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import client_tasks
import msgpack
import pytest
import zmq
from client_tasks import inc
from outside import PATH, TIMEOUT_S, Home, Program, command_line, wait_until
from standalone import broker
from test_cli import headrace
from test_hostile_peers import SLOWER_MAX, SLOWER_S, rounds

import headrace as hr
from headrace import keys
from headrace.cli.app import ExitCode

HELLO, WELCOME, GOODBYE = 1, 2, 3
CLIENT, WORKER, OBSERVER = 1, 2, 3


@contextlib.contextmanager
def listening(folder, *options, **more):
    """A broker that listens at a port, as (program, address on this machine, address in the network)."""
    with broker("--listen", "tcp://127.0.0.1:*", "--keys", folder, *options, **more) as (program, address):
        yield program, address, program.line().strip()


@pytest.fixture(scope="module")
def far(folder):
    with listening(folder) as (program, _, far):
        yield program, far


def dealer(context, endpoint, own=None, **options):
    """A peer that speaks ZeroMQ without headrace."""
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    if own is not None:
        peer.curve_publickey, peer.curve_secretkey, peer.curve_serverkey = (key.encode() for key in own)
    for name, value in options.items():
        setattr(peer, name, value)
    peer.connect(endpoint)
    return peer


def hello(role):
    versions = hr.__version__, ".".join(map(str, sys.version_info[:3]))
    return msgpack.packb([HELLO, 1, role, *versions, 0, 0, 0, os.getpid()])


def answer(peer, frame, timeout_s=2.0):
    """What the broker says to a first frame, if anything."""
    with contextlib.suppress(zmq.Again):
        peer.send(frame, zmq.NOBLOCK)
    return msgpack.unpackb(peer.recv()) if peer.poll(int(timeout_s * 1e3)) else None


def new_pair(broker_key):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return public, secret, broker_key


# -- who comes in ------------------------------------------------------------------------------------------------------


def test_a_client_with_its_key_comes_in(far, folder):
    _, endpoint = far
    with hr.Client(endpoint, keys=folder / "client.key") as client:
        graph = hr.Graph()
        total = graph.reduce(client_tasks.add, graph.map(inc, range(500)))
        assert client.submit(graph, keep=[total]).result(timeout=TIMEOUT_S) == sum(range(1, 501))
        payload = os.urandom(8 << 20)
        assert client.call(client_tasks.slowly, 0, payload).result(timeout=TIMEOUT_S) == payload
    with hr.Client(endpoint, keys=folder) as client:  # the folder says it all
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def test_the_folder_of_keys_may_come_from_the_environment(far, folder, monkeypatch):
    monkeypatch.setenv("HEADRACE_KEYS", str(folder))
    with hr.Client(far[1]) as client:
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
    assert json.loads(headrace("status", far[1], "--json").stdout)["tasks"]["done"] > 0


def test_status_takes_a_key_that_may_look(far, folder):
    for key in ("observer.key", "client.key"):
        assert headrace("status", far[1], "--keys", folder / key).returncode == 0
    assert headrace("status", far[1], "--keys", folder / "worker.key").returncode == ExitCode.INFRASTRUCTURE


@pytest.mark.parametrize("role", ["observer", "worker"])
def test_a_key_for_another_role_makes_no_client(far, folder, role):
    with pytest.raises(hr.InfraError, match=f"the key of this peer is for a {role}, and it says that it is a client"):
        hr.Client(far[1], keys=folder / f"{role}.key")


def test_a_key_that_is_not_on_the_list_is_refused(far, folder, tmp_path):
    own = keys.keys_of_peer(folder, "client")
    stranger = new_pair(own.broker)
    path = tmp_path / "client.key"
    path.write_text(
        "".join(f"{name} {key}\n" for name, key in zip(("public", "secret", "broker"), stranger, strict=True))
    )
    path.chmod(0o600)
    start = time.monotonic()
    with pytest.raises(hr.AuthError, match="does not accept this connection"):
        hr.Client(far[1], keys=path)
    assert time.monotonic() - start < 5


def test_a_broker_that_is_another_one_is_not_trusted(far, folder, tmp_path):
    made = headrace("keygen", tmp_path / "others")
    assert made.returncode == 0
    with pytest.raises(hr.AuthError):
        hr.Client(far[1], keys=tmp_path / "others")


def test_strangers_hear_nothing(far, folder):
    own = keys.keys_of_peer(folder, "client")
    with zmq.Context() as context:
        no_key = dealer(context, far[1])
        wrong_key = dealer(context, far[1], new_pair(own.broker))
        wrong_broker = dealer(context, far[1], (own.public, own.secret, new_pair("")[0]))
        right = dealer(context, far[1], own)
        assert answer(right, hello(CLIENT))[0] == WELCOME
        for peer in (no_key, wrong_key, wrong_broker):
            assert answer(peer, hello(CLIENT), 0.7) is None
        context.destroy(0)


def test_a_key_of_a_worker_cannot_take_a_workers_place(far, folder):
    own = keys.keys_of_peer(folder / "worker.key", "worker")
    with zmq.Context() as context:
        peer = dealer(context, far[1], own)
        told = answer(peer, hello(WORKER))
        assert told[0] == GOODBYE
        assert "no such worker is expected" in told[2]
        context.destroy(0)


# -- what strangers cost -----------------------------------------------------------------------------------------------


def talk_garbage(address):
    """A connection that says what nobody understands."""
    host, port = address.removeprefix("tcp://").split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as peer:
        peer.sendall(os.urandom(512))
        peer.settimeout(0.05)
        peer.recv(64)


def test_half_open_and_hostile_connections_change_nothing(folder):
    with (
        listening(folder) as (program, _, endpoint),
        hr.Client(endpoint, keys=folder) as client,
        contextlib.ExitStack() as stack,
    ):
        rounds(client, 0.5)
        alone = sorted(rounds(client, 1.0))[-1]
        descriptors, memory = descriptors_of(program.pid), resident(program.pid)
        host, port = endpoint.removeprefix("tcp://").split(":")
        for _ in range(500):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
        context = stack.enter_context(zmq.Context())
        own = keys.keys_of_peer(folder, "client")
        strangers = [dealer(context, endpoint, new_pair(own.broker)) for _ in range(20)]
        strangers += [dealer(context, endpoint) for _ in range(20)]
        until = time.monotonic() + 2
        garbage_sent = 0
        while time.monotonic() < until:
            talk_garbage(endpoint)
            garbage_sent += 1
            assert max(rounds(client, 0.05)) < SLOWER_MAX * alone + SLOWER_S
        assert garbage_sent > 5
        with hr.Client(endpoint, keys=folder) as late:
            assert late.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        context.destroy(0)
        # Those that did not shake hands in five seconds are cut, whether they go or not.
        wait_until(lambda: descriptors_of(program.pid) <= descriptors + 8)
        assert resident(program.pid) < memory + (32 << 20)
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2


def latency_p99(client, seconds):
    took = sorted(rounds(client, seconds))
    return took[len(took) * 99 // 100]


#: Of ten thousand strangers, and of a tenth as many in every run of the tests.
CROWDS = [1_000, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("count", CROWDS)
def test_a_crowd_at_the_door_changes_nothing(folder, count):
    """Half-open, garbling and dribbling connections, made anew as fast as they are cut: others are served as before."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(f"descriptors are limited to {hard}: a crowd of {count} is NOT TESTED HERE")
    with (
        listening(folder) as (program, _, endpoint),
        hr.Client(endpoint, keys=folder) as client,
    ):
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (hard, hard))
        latency_p99(client, 0.5)
        alone = latency_p99(client, 3.0)
        descriptors, memory = descriptors_of(program.pid), resident(program.pid)
        host, port = endpoint.removeprefix("tcp://").split(":")
        script = Path(__file__).with_name("hostile_connections.py")
        words = ["nice", "-n", "10", sys.executable, script, host, port, str(count), "5"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout.readline() == "all are open\n"
            most, peak = descriptors_of(program.pid), resident(program.pid)
            crowded = latency_p99(client, 3.0)
            with hr.Client(endpoint, keys=folder) as late:
                assert late.call(inc, 1).result(timeout=TIMEOUT_S) == 2
            report = json.loads(crowd.stdout.read())
        assert report["most"] == count
        assert most > descriptors + count // 2
        wait_until(lambda: descriptors_of(program.pid) <= descriptors + 8)
        after = latency_p99(client, 1.0)
        left = resident(program.pid) - memory
        print(
            f"{report}: p99 {alone * 1e6:.0f} µs alone, {crowded * 1e6:.0f} µs in the crowd, {after * 1e6:.0f} µs after"
            f"; {(peak - memory) / count / 1024:.1f} KiB each, {left >> 20} MiB left"
        )
        assert left < 32 << 20
        assert crowded < (2 if "HEADRACE_STRICT_TIMING" in os.environ else SLOWER_MAX) * alone + SLOWER_S


@pytest.mark.timeout(120)
def test_a_crowd_that_would_take_all_descriptors_takes_some(folder, monkeypatch):
    """libzmq ends a process that has none left for a local peer."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    options = ["--workers", 2, "--listen", "tcp://127.0.0.1:*", "--keys", folder]
    words = ["prlimit", "--nofile=1024:1024", *command_line("broker", *options)]
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(Program(stack.enter_context(Home()), *words))
        address, endpoint = program.line().strip(), program.line().strip()
        client = stack.enter_context(hr.Client(endpoint, keys=folder))
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        descriptors = descriptors_of(program.pid)
        host, port = endpoint.removeprefix("tcp://").split(":")
        for _ in range(3_000):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex((host, int(port)))
        for number in range(50):
            with hr.Client(address) as local:  # it needs a descriptor, and a worker whose task ends it needs some
                assert local.call(inc, number).result(timeout=TIMEOUT_S) == number + 1
        with pytest.raises(hr.PoisonTask):
            client.call(os.abort).result(timeout=TIMEOUT_S)
        assert descriptors_of(program.pid) < 1_000
        with hr.Client(endpoint, keys=folder) as late:
            assert late.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        wait_until(lambda: descriptors_of(program.pid) <= descriptors + 8)
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        client.close()
        os.kill(program.pid, 15)
        code, _, errors = program.end()
        assert code == 0
        assert "of 1024 descriptors are taken: nobody new comes in" in errors


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# -- what is listened to -----------------------------------------------------------------------------------------------


def listeners(pids):
    """Ports of TCP at which any of these processes listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(descriptor))
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.append(int(words[1].rpartition(":")[2], 16))
    return found


def test_nothing_listens_to_the_network_unless_it_was_asked_to(folder):
    with hr.Client(workers=1) as client:
        pid = client.call(os.getpid).result(timeout=TIMEOUT_S)
        assert listeners([os.getpid(), pid]) == []
    with broker() as (program, address), hr.Client(address) as client:
        assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        assert listeners(program.pids()) == []
    with listening(folder) as (program, _, endpoint):
        assert listeners(program.pids()) == [int(endpoint.rpartition(":")[2])]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]", "localhost", "lo"])
def test_no_address_is_bound_without_keys(host, tmp_path):
    run = headrace("broker", "--workers", 1, "--listen", f"tcp://{host}:0", "--keys", tmp_path)
    assert run.returncode == ExitCode.USAGE
    assert f"make them by `headrace keygen {tmp_path}`" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("listen", ["8786", "udp://127.0.0.1:1", "tcp://host", "ipc:///tmp/x", "tcp://h:1/x"])
def test_what_is_no_address_of_the_network_is_refused(listen, folder):
    run = headrace("broker", "--workers", 1, "--listen", listen, "--keys", folder)
    assert (run.returncode, "--listen takes tcp://HOST:PORT" in run.stderr) == (ExitCode.USAGE, True)


def test_an_address_that_is_taken_is_an_error(far, folder):
    run = headrace("broker", "--workers", 1, "--listen", far[1], "--keys", folder)
    assert run.returncode == ExitCode.INFRASTRUCTURE
    assert "Address already in use" in run.stderr


# -- key files ---------------------------------------------------------------------------------------------------------


def test_keys_are_made_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        made = headrace("keygen", tmp_path / "keys")
    finally:
        os.umask(before)
    paths = list(map(Path, made.stdout.split()))
    assert [path.name for path in paths] == ["broker.key", "client.key", "worker.key", "observer.key", "allowed"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    again = headrace("keygen", tmp_path / "keys")
    assert again.returncode == ExitCode.USAGE
    assert "is there already" in again.stderr


def test_a_further_key_comes_in_and_a_deleted_one_does_not(folder, tmp_path):
    assert headrace("keygen", tmp_path / "keys").returncode == 0
    folder = tmp_path / "keys"
    assert headrace("keygen", folder, "--role", "client", "--name", "alice").returncode == 0
    lines = (folder / "allowed").read_text().splitlines()
    (folder / "allowed").write_text("\n".join(line for line in lines if not line.endswith(" client")) + "\n")
    with listening(folder) as (_, _, endpoint):
        with hr.Client(endpoint, keys=folder / "alice.key") as client:
            assert client.call(inc, 1).result(timeout=TIMEOUT_S) == 2
        with pytest.raises(hr.AuthError):
            hr.Client(endpoint, keys=folder / "client.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(folder, tmp_path, mode):
    path = tmp_path / "client.key"
    path.write_text((folder / "client.key").read_text())
    path.chmod(mode)
    with pytest.raises(hr.UsageError, match=rf"can be read by others .*mode {mode:04o}"):
        hr.Client("tcp://127.0.0.1:1", keys=path)
    copied = tmp_path / "broker"
    copied.mkdir()
    for name in ("broker.key", "allowed"):
        (copied / name).write_text((folder / name).read_text())
        (copied / name).chmod(0o600)
    (copied / "broker.key").chmod(mode)
    run = headrace("broker", "--listen", "tcp://127.0.0.1:*", "--keys", copied)
    assert (run.returncode, "can be read by others" in run.stderr) == (ExitCode.USAGE, True)


def test_bad_key_files_are_refused_in_words(folder, tmp_path):
    with pytest.raises(hr.UsageError, match="there is no key at"):
        hr.Client("tcp://127.0.0.1:1", keys=tmp_path)
    with pytest.raises(hr.UsageError, match="the key of a broker itself"):
        hr.Client("tcp://127.0.0.1:1", keys=folder / "broker.key")
    path = tmp_path / "client.key"
    path.write_text("nonsense\n")
    path.chmod(0o600)
    with pytest.raises(hr.UsageError, match="no key file"):
        hr.Client("tcp://127.0.0.1:1", keys=path)
    with pytest.raises(hr.UsageError, match="without an address"):
        hr.Client(keys=folder)


def test_secrets_are_told_nobody(far, folder):
    program, _ = far
    secrets = [
        line.split()[1]
        for path in folder.glob("*.key")
        for line in path.read_text().splitlines()
        if line.startswith("secret")
    ]
    assert len(secrets) == 4
    for pid in program.pids():
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
            assert not any(secret in text for secret in secrets)


def test_no_switch_turns_the_keys_off():
    help_text = headrace("broker", "--help").stdout + headrace("worker", "--help").stdout
    for word in ("insecure", "no-auth", "plain", "without-keys", "disable"):
        assert word not in help_text


# -- the broker never unpickles ----------------------------------------------------------------------------------------

# `tests/audit` ends every `headrace broker` of these tests that unpickles something. This one shows that it would.


def test_the_broker_never_unpickles(folder, tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("HEADRACE_TEST_AUDIT", str(notes))
    with listening(folder) as (_, address, endpoint):
        assert notes.read_text() == "watched\n"
        for place, own in ((address, None), (endpoint, folder)):
            with hr.Client(place, keys=own) as client:
                graph = hr.Graph()
                nodes = [graph.add(client_tasks.double_all, [1, 2]), graph.add(client_tasks.fail, 3)]
                run = client.submit(graph, keep=nodes)
                assert run.result("double_all-0", timeout=TIMEOUT_S) == [2, 4]
                ref = client.put({"a": [1, 2]})
                assert client.call(client_tasks.dig, ref).result(timeout=TIMEOUT_S) == 3
                client.statistics()
                with pytest.raises(hr.InfraError):
                    client.call(os.abort).result(timeout=TIMEOUT_S)
        assert headrace("status", address).returncode == 0
    assert notes.read_text() == "watched\n"


@pytest.mark.parametrize("how", ["pickle.loads(pickle.dumps(1))", "pickle._loads(pickle.dumps(print))"])
def test_a_broker_that_unpickled_would_be_ended(tmp_path, monkeypatch, how):
    (tmp_path / "hasty.py").write_text(f"import pickle\n{how}\n")
    notes = tmp_path / "notes"
    monkeypatch.setenv("HEADRACE_TEST_AUDIT", str(notes))
    monkeypatch.setenv("PYTHONPATH", f"{PATH}{os.pathsep}{tmp_path}")
    start = "import hasty; from headrace.cli import main; main()"
    words = [sys.executable, "-c", start, "headrace", "broker", "--workers", "1"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert run.returncode == 86
    assert "UNPICKLED" in notes.read_text()
