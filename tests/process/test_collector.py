"""What the collector sees of graphs and clients while another thread submits."""

import gc
import os
import threading

import client_tasks

import headrace as hr


def test_the_collector_sees_the_same_while_a_graph_is_submitted():
    large = hr.Graph()
    megabyte = bytes((1 << 20) - 1)
    for _ in range(50):
        large.add(client_tasks.touch, os.devnull, megabyte)
    with hr.Client(workers=1) as client:
        client.call(client_tasks.inc, 1).result(timeout=30)
        watched = [large, client._core]
        before = [gc.get_referents(thing) for thing in watched]
        assert all(before)
        runs = []
        submitting = threading.Thread(target=lambda: runs.append(client.submit(large, keep=[])))
        submitting.start()
        looks, odd = 0, 0
        while submitting.is_alive():
            odd += [gc.get_referents(thing) for thing in watched] != before
            looks += 1
        submitting.join()
        assert looks
        assert not odd
        runs[0].cancel()
        client.close(cancel=True)
