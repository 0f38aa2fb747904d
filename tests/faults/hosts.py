"""Processes that train one run together, on this host or on hosts of their own.

A host is a network namespace: an interface, an address and nothing else of the network. It takes
root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.processes import Command, Forks


@dataclass(frozen=True)
class Host:
    """`name`: of its network namespace."""

    name: str
    address: str

    def inside(self, *words: str) -> list[str]:
        """The words of a command that runs on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut_off(self) -> None:
        """Pull the plug of its network: nobody is told."""
        subprocess.run(self.inside("ip", "link", "set", "net0", "down"), check=True)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, check=True)
        for pid in listed.stdout.split():
            with suppress(ProcessLookupError):  # the one that starts it has taken it along
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Two hosts on one cable."""
    names = [f"lab{os.getpid()}{letter}" for letter in "ab"]
    hosts = [Host(name, f"10.77.0.{k}") for k, name in enumerate(names, 1)]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        ends = [["net0", "netns", name] for name in names]
        cable = ["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]]
        subprocess.run(cable, check=True)
        for host in hosts:
            for words in (
                ["address", "add", f"{host.address}/24", "dev", "net0"],
                ["link", "set", "net0", "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(host.inside("ip", *words), check=True)
        yield hosts
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def need_hosts() -> None:
    """Skip the test where there cannot be such hosts; on the machine that checks changes, fail."""
    missing = None
    if shutil.which("ip") is None:
        missing = "the program ip is missing (iproute2)"
    elif os.geteuid() != 0:
        missing = "only root may make network namespaces"
    elif subprocess.run(["ip", "netns", "add", trial := f"lab{os.getpid()}"]).returncode:
        missing = "this machine allows no network namespaces"
    else:
        subprocess.run(["ip", "netns", "delete", trial], check=True)
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"Two hosts are needed: {missing}.")
    if missing:
        pytest.skip(f"Two hosts are needed: {missing}.")


def train_together(
    forks: Forks,
    *arguments: list[str],
    hosts: list[Host] | None = None,
    patience: float = 60,
) -> list[Command]:
    """Processes that train together, each by its words of the command line; the first writes.

    They are as torchrun makes them. `hosts`: a host for each process, else all are on this one.
    `patience`: seconds until one that is silent counts as gone.
    """
    count = len(arguments)
    here = "127.0.0.1"
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(1 if hosts else count),
        "MASTER_ADDR": hosts[0].address if hosts else here,
        "MASTER_PORT": str(29_500 if hosts else free_port(here)),
    }
    commands = []
    for number, words in enumerate(arguments):
        mine = {"RANK": str(number), "LOCAL_RANK": str(0 if hosts else number)}
        where = hosts[number].name if hosts else None
        commands.append(forks.call(one_of_several, common | mine, where, patience, words))
    return commands


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        return server.getsockname()[1]


def one_of_several(
    environment: dict[str, str], host: str | None, patience: float, words: list[str]
) -> int:
    from diffusion_core.cli.main import entry
    from diffusion_core.training import distributed

    if host:
        enter(host)
    os.environ.update(environment)
    distributed.PATIENCE, distributed.GRACE_SECONDS = timedelta(seconds=patience), 2.0
    distributed.MEETING_SECONDS = 0.2  # often, so that a test does not wait for them
    sys.argv[1:] = words
    entry()  # not `main`: how one of several processes leaves is part of the command


def enter(host: str) -> None:
    """Move this process, which has one thread, to a host."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(Path("/run/netns") / host) as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
