"""Machines for tests: network namespaces with a virtual cable to the broker's, made by iproute2 and gone afterwards."""

import contextlib
import os
import shutil
import subprocess
import uuid

import pytest


def ip(*words):
    run = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise OSError(f"ip {' '.join(map(str, words))}: {run.stderr.strip()}")
    return run.stdout


#: An address of a network card that there is not.
NOBODYS_CARD = "02:00:00:00:00:99"


class Machine:
    """A namespace with one cable to the broker's."""

    def __init__(self, network, number):
        self.network = network
        self.name = f"{network.name}m{number}"
        self.cable = f"{network.name}c{number}"
        self.broker_address = f"10.77.{number}.1"
        self.address = f"10.77.{number}.2"

    def plug_in(self):
        far = f"{self.cable}b"
        ip("netns", "add", self.name)
        ip(
            "link",
            "add",
            self.cable,
            "netns",
            self.network.name,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            self.name,
        )
        for space, device, address in (
            (self.network.name, self.cable, self.broker_address),
            (self.name, far, self.address),
        ):
            ip("-n", space, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", space, "link", "set", device, "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def shape(self, rate):
        """Let no more than that pass, in each direction."""
        for space, device in ((self.network.name, self.cable), (self.name, f"{self.cable}b")):
            words = ["qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            subprocess.run(["tc", "-n", space, *words], check=True, capture_output=True)

    def cut(self):
        """Take the cable's end at the broker down: whatever is sent is lost, and nobody is told."""
        ip("-n", self.network.name, "link", "set", self.cable, "down")

    def heal(self):
        ip("-n", self.network.name, "link", "set", self.cable, "up")

    def deafen(self):
        """Have what the broker sends get lost, while what the machine sends arrives: it goes to nobody's card."""
        self._misdirect(self.network.name, self.cable, self.address)

    def mute(self):
        """The other way round."""
        self._misdirect(self.name, f"{self.cable}b", self.broker_address)

    def hear(self):
        """Undo both."""
        for space, device, address in self._directions():
            with contextlib.suppress(OSError):  # it was not misdirected
                ip("-n", space, "neigh", "del", address, "dev", device)

    def _misdirect(self, space, device, address):
        ip("-n", space, "neigh", "replace", address, "lladdr", NOBODYS_CARD, "nud", "permanent", "dev", device)

    def _directions(self):
        return (
            (self.network.name, self.cable, self.address),
            (self.name, f"{self.cable}b", self.broker_address),
        )

    def command(self, *words):
        return ["ip", "netns", "exec", self.name, *map(str, words)]


class Network:
    """The broker's namespace, and those of other machines."""

    def __init__(self):
        self.name = f"hr{uuid.uuid4().hex[:4]}"
        self.machines = []

    def command(self, *words):
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def route(self):
        """Let the machines reach each other, through the broker's."""
        subprocess.run(self.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True, capture_output=True)
        for machine in self.machines:
            ip("-n", machine.name, "route", "add", "default", "via", machine.broker_address)

    def add(self):
        machine = Machine(self, len(self.machines) + 1)
        self.machines.append(machine)
        machine.plug_in()
        return machine


@contextlib.contextmanager
def network(machines):
    """A network with so many machines beside the broker's; the test is skipped where none can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root and iproute2: NOT TESTED HERE")
    made = Network()
    try:
        try:
            ip("netns", "add", made.name)
            ip("-n", made.name, "link", "set", "lo", "up")
            for _ in range(machines):
                made.add()
            subprocess.run(made.command("true"), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made: NOT TESTED HERE: {error}")
        yield made
    finally:
        for name in (made.name, *(machine.name for machine in made.machines)):
            with contextlib.suppress(OSError):
                ip("netns", "del", name)
