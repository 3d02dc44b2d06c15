"""A program that speaks to a broker's socket as nobody should: many peers, frames of every bad kind, as fast as it can.

    python tests/process/hostile_peer.py SOCKET SECONDS SEED [NAMES]

NAMES is how many names its connections share; by default each has its own, and now and then one sends a frame of
100 MiB (libzmq keeps the last frame of a connection whose name another one took). At the end it prints what it has
sent, and with which words it was sent away.
"""

import collections
import contextlib
import json
import os
import platform
import random
import socket
import sys
import time
from importlib.metadata import version
from pathlib import Path

import msgpack
import zmq

GOLDEN = Path(__file__).parents[2] / "rust" / "wire" / "golden"
HELLO, WELCOME, GOODBYE, QUERY = 1, 2, 3, 14
CLIENT, WORKER, OBSERVER = 1, 2, 3

#: Peers at a time, each with a connection of its own.
PEERS = 16
#: Frames to a peer before the next is looked at.
BURST = 50
LONG_BYTES = 100 << 20
LONG_EVERY_S = 1.0
#: Unfinished handshakes, on sockets that speak no ZeroMQ.
STRANGERS = 20


def hello(role, worker=0, incarnation=0):
    versions = version("headrace"), platform.python_version()
    return msgpack.packb([HELLO, 1, role, *versions, 0, worker, incarnation, os.getpid()])


def bad_frames(dice):
    """A supply of frames, by kind."""
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]

    def flipped():
        frame = bytearray(dice.choice(golden))
        for _ in range(dice.randint(1, 4)):
            frame[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
        return bytes(frame)

    def truncated():
        frame = dice.choice(golden)
        return frame[: dice.randrange(len(frame))]

    heads = [
        b"\xdd\xff\xff\xff\xff",
        b"\x92\x18\xc6\xff\xff\xff\xfc",
        b"\x93\x03\x01\xdb\xff\xff\xff\xff",
        b"\x93\x18\xc4\0\xdf\xff\xff\xff\xff",
    ]
    return {
        "random bytes": [dice.randbytes(dice.randint(1, 200)) for _ in range(200)],
        "truncated": [truncated() for _ in range(200)],
        "flipped": [flipped() for _ in range(400)],
        "out of turn": golden,
        "huge lengths": [head + dice.randbytes(8) for head in heads],
        "deep nesting": [opener * 100_000 for opener in (b"\x91", b"\x81\x00", b"\xdd\0\0\0\1")],
        "empty": [b""],
        "multipart": golden,
        "long": [bytes(LONG_BYTES)],
        "questions": [msgpack.packb([QUERY, 0, number]) for number in range(4)],
        "greetings": [hello(role, worker, number) for role in (1, 2, 3) for worker in (0, 1) for number in (1, 2, 9)],
    }


class Peer:
    """One connection. Some greet first, some do not read; after GOODBYE some go on all the same."""

    def __init__(self, context, endpoint, dice, names):
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        if names:
            self.socket.routing_id = b"peer %d" % dice.randrange(names)
        elif dice.random() < 0.3:
            # A name of its own choice, which may be too long to be answered.
            self.socket.routing_id = b"-" + dice.randbytes(dice.choice([8, 40]))
        self.socket.connect(endpoint)
        self.reads = dice.random() < 0.7
        self.stays = dice.random() < 0.3
        self.left = dice.randint(1, 40)
        self.kinds = None
        if dice.random() < 0.5:
            self.send(hello(dice.choice([CLIENT, WORKER, OBSERVER]), dice.randrange(3), dice.randrange(3)))
            if dice.random() < 0.5:
                self.kinds = ["questions"]

    def send(self, *parts):
        """Say whether the socket took it."""
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def farewells(self):
        """With which words the broker has sent it away."""
        with contextlib.suppress(zmq.Again):
            while self.reads:
                message = msgpack.unpackb(self.socket.recv(zmq.NOBLOCK))
                if message[0] == GOODBYE:
                    yield message[2]


def ask_why(context, endpoint, frames):
    """Send one frame of each kind and wait; the broker's last words, by role of the sender and kind."""
    heard = {}
    for role in (None, OBSERVER):
        for kind, some in frames.items():
            with context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                peer.connect(endpoint)
                if role:
                    peer.send(hello(role))
                    assert msgpack.unpackb(peer.recv())[0] == WELCOME
                parts = [some[0]] * (3 if kind == "multipart" else 1)
                peer.send_multipart(parts)
                message = msgpack.unpackb(peer.recv()) if peer.poll(20_000) else [None]
                name = "observer" if role else "stranger"
                heard[f"{name}: {kind}"] = message[2] if message[0] == GOODBYE else None
    return heard


def attack(path, seconds, seed, names=0):
    dice = random.Random(seed)
    frames = bad_frames(dice)
    context = zmq.Context()
    endpoint = f"ipc://{path}"
    heard = ask_why(context, endpoint, frames)
    peers = [Peer(context, endpoint, dice, names) for _ in range(PEERS)]
    if names:
        del frames["long"]
    strangers = [stranger(path, dice) for _ in range(STRANGERS)]
    sent = collections.Counter()
    known, start = len(peers), time.monotonic()
    long_s = start - LONG_EVERY_S
    while (now := time.monotonic()) < start + seconds:
        place = dice.randrange(PEERS)
        peer = peers[place]
        kinds = peer.kinds or list(frames)
        for _ in range(BURST):
            kind = dice.choice(kinds)
            if kind == "long" and now < long_s + LONG_EVERY_S:
                continue
            parts = [dice.choice(frames[kind])] * (dice.choice([2, 3, 50]) if kind == "multipart" else 1)
            if peer.send(*parts):
                sent[kind] += 1
                long_s = now if kind == "long" else long_s
        told = list(peer.farewells())
        peer.left -= 1
        if (told and not peer.stays) or peer.left == 0:
            peer.socket.close()
            peers[place] = Peer(context, endpoint, dice, names)
            known += 1
    took_s = time.monotonic() - start
    for one in strangers:
        one.close()
    context.destroy(linger=0)
    return {"seconds": took_s, "frames": sent.total(), "peers": known, "sent": sent, "heard": heard}


def stranger(path, dice):
    """A connection that speaks no ZeroMQ, or nothing at all."""
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    with contextlib.suppress(OSError):
        one.sendall(dice.choice([b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" + bytes(8), dice.randbytes(100)]))
    return one


if __name__ == "__main__":
    print("attacking", flush=True)
    print(json.dumps(attack(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:]))))
