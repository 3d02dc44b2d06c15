"""A stream of bytes between two machines, with nothing around it: what a transfer is held against.

`python streams.py KIND send|receive ADDRESS MEGABYTES`, where KIND is `curve` (libzmq, encrypted) or `tcp`. The
receiver prints the seconds from its request to the last byte.
"""

import socket
import sys
import time

CHUNK = 1 << 20


def curve(role, address, chunks):
    """Send frames of 1 MiB over a DEALER and a ROUTER with CURVE, by keys that both know."""
    import zmq

    public, secret = b"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", b"D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
    with zmq.Context() as context:
        peer = context.socket(zmq.ROUTER if role == "send" else zmq.DEALER)
        peer.curve_secretkey, peer.curve_publickey = secret, public
        if role == "send":
            peer.curve_server = True
            peer.bind(f"tcp://{address}")
            name, _ = peer.recv_multipart()
            body = bytes(CHUNK)
            for _ in range(chunks):
                peer.send(name, zmq.SNDMORE)
                peer.send(body, copy=False)
            peer.recv_multipart()
        else:
            peer.curve_serverkey = public
            peer.connect(f"tcp://{address}")
            start = time.monotonic()
            peer.send(b"go")
            for _ in range(chunks):
                peer.recv(copy=False)
            print(time.monotonic() - start)
            peer.send(b"end")
        peer.close(1_000)


def tcp(role, address, chunks):
    """Send the same over a socket."""
    host, port = address.rsplit(":", 1)
    if role == "send":
        with socket.create_server((host, int(port))) as server:
            peer, _ = server.accept()
            with peer:
                peer.recv(1)
                body = bytes(CHUNK)
                for _ in range(chunks):
                    peer.sendall(body)
                peer.recv(1)
        return
    with socket.create_connection((host, int(port))) as peer:
        buffer = bytearray(CHUNK)
        start = time.monotonic()
        peer.sendall(b"g")
        left = chunks * CHUNK
        while left:
            left -= peer.recv_into(buffer)
        print(time.monotonic() - start)
        peer.sendall(b"e")


if __name__ == "__main__":
    kind, role, address, megabytes = sys.argv[1:]
    {"curve": curve, "tcp": tcp}[kind](role, address, int(megabytes) * 1_000_000 // CHUNK)
