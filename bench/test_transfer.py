"""What does a large result cost that goes to other machines?

The machines are network namespaces, with a virtual cable each to that of the broker, through which they reach each
other. The reference is a stream of the same length between the same two machines, by libzmq with CURVE, in the same
run; and beside it one over a bare socket, which is not encrypted.
"""

import contextlib
import statistics
import subprocess
import sys
from pathlib import Path

import headrace
import transfer_tasks
from figures import Figure, at_most

sys.path.append(str(Path(__file__).parents[1] / "tests" / "process"))

LARGE_MB = 1_000
SHARED_MB = 128
READERS = 4
TURNS_MAX = 5


@contextlib.contextmanager
def machines(folder, count, rate=None):
    """A client, and machines with one worker each, numbered in their order."""
    from networks import network
    from outside import Home, Program, command_line

    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(count))
        net.route()
        if rate:
            for machine in net.machines:
                machine.shape(rate)
        home = stack.enter_context(Home())
        keys = folder / "keys"
        subprocess.run(command_line("keygen", keys), check=True, capture_output=True)
        words = command_line("broker", "--workers", 0, "--listen", "tcp://0.0.0.0:8786", "--keys", keys)
        broker = stack.enter_context(Program(home, *net.command(*words), cwd=Path(__file__).parent))
        client = stack.enter_context(headrace.Client(broker.line().strip()))
        for number, machine in enumerate(net.machines):
            words = command_line("worker", f"tcp://{machine.broker_address}:8786", "--keys", keys, "--slots", 1)
            words = ["env", f"PYTHONPATH={Path(__file__).parent}", *words]
            stack.enter_context(Program(home, *machine.command(*words)))
            while sum(worker.pid > 0 for worker in client.statistics().workers) <= number:
                pass
        yield client, net


def transfer_s(client, megabytes, readers, turn):
    """Seconds from the end of the task that made an array to the start of the last one that reads it elsewhere."""
    graph = headrace.Graph()
    made = graph.add(headrace.task(transfer_tasks.make, worker=0), megabytes, turn)
    here = graph.add(headrace.task(transfer_tasks.ended, worker=0), made)
    there = [graph.add(headrace.task(transfer_tasks.arrived, worker=1 + number), made) for number in range(readers)]
    run = client.submit(graph, keep=[here, *there])
    (begin_s, value), *ends = run.results()
    assert value == turn
    assert all(sum_of == 2 * turn for _, sum_of in ends)
    run.release()
    return max(end_s for end_s, _ in ends) - begin_s


def stream_s(kind, net, megabytes, port):
    """Seconds that a bare stream takes from the first machine to the second."""
    first, second = net.machines[:2]
    words = [sys.executable, str(Path(__file__).parent / "streams.py"), kind]
    place = f"{first.address}:{port}"
    with subprocess.Popen(first.command(*words, "send", place, megabytes)) as sender:
        while True:
            done = subprocess.run(
                second.command(*words, "receive", place, megabytes), capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
            assert sender.poll() is None, done.stderr  # it does not listen yet
        sender.wait(10)
    return float(done.stdout)


def test_a_result_to_another_machine(tmp_path, rounds, record):
    turns = min(rounds, TURNS_MAX)
    with machines(tmp_path, 2) as (client, net):
        transfer_s(client, 10, 1, 1)
        ratios, ours, curve, tcp = [], [], [], []
        for turn in range(turns):
            ours.append(transfer_s(client, LARGE_MB, 1, turn + 1))
            curve.append(stream_s("curve", net, LARGE_MB, 9_000 + 2 * turn))
            tcp.append(stream_s("tcp", net, LARGE_MB, 9_001 + 2 * turn))
            ratios.append(curve[-1] / ours[-1])
    rate = lambda seconds: f"{LARGE_MB / statistics.median(seconds):.0f} MB/s"  # noqa: E731
    record(
        Figure(
            question="1 GB result to another machine",
            measured=rate(ours),
            reference=f"bare CURVE stream {rate(curve)}",
            score=statistics.median(ratios),
            unit="× the stream",
            bar=0.8,
            aim=0.95,
            at_least=True,
            samples=ratios,
            detail=f"raw TCP {rate(tcp)}",
        )
    )


def test_one_result_to_four_machines(tmp_path, rounds, record):
    turns = min(rounds, TURNS_MAX)
    with machines(tmp_path, 1 + READERS, "1gbit") as (client, _):
        transfer_s(client, 10, READERS, 1)
        one = [transfer_s(client, SHARED_MB, 1, turn + 1) for turn in range(turns)]
        four = [transfer_s(client, SHARED_MB, READERS, turn + 1) for turn in range(turns)]
    record(
        at_most(
            "128 MB to 4 machines over links of 1 Gbit/s",
            [many / statistics.median(one) for many in four],
            "× the time of one",
            bar=1.5,
            aim=1.2,
            measured=f"{statistics.median(four):.2f} s",
            reference=f"to one {statistics.median(one):.2f} s",
        )
    )
