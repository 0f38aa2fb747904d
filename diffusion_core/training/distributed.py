"""The processes that train one run together: how they join, wait for each other, and notice an end.

A process that is gone leaves the others waiting for numbers that never come, for half an hour or,
on a GPU, without a word. So in each of them a thread beside the training meets those of the others
once a second. Where one does not come, or ends, the others end too, whatever they wait for.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import accelerate
import psutil
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState

from diffusion_core.runs.status_writer import StopRequested

MEETING_SECONDS = 1.0  # from one meeting to the next
# Until one that does not come counts as gone: a host without power or network cannot tell.
PATIENCE = timedelta(seconds=60)
# The longest step, and the longest time between the first process's start and the last one's.
LONGEST_STEP = timedelta(minutes=10)
# For the training to end by itself once another process is gone; torchrun kills after 30.
GRACE_SECONDS = 20.0


class ProcessLost(RuntimeError):
    """Another process of this run is gone; the message says what is known of it."""


class ProcessesDiffer(RuntimeError):
    """The processes would not train the same run; the message says what differs."""


@dataclass(frozen=True)
class Report:
    """The state of a process, exchanged in a meeting."""

    host: str
    ready: bool = False  # to train
    leaves: bool = False
    why: str | None = None  # it leaves before the others, for this reason
    action: str | None = None  # it leaves because of this request, stop or pause


def process_number() -> int:
    """Which of the run's processes this is; 0 is the one that writes the run folder."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """How many of the run's processes are on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def network_to(address: str) -> str | None:
    """The name of the network interface on the way to `address`; None where there is none.

    Left alone, gloo takes the one that this host's name belongs to. On Debian that is 127.0.1.1,
    where no other machine finds it.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)  # of UDP: nothing is sent
            mine = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address.partition("%")[0] == mine for known in addresses):
            return name
    return None


@contextmanager
def joined(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the other processes of the run; at the end leave them and say why.

    Raises ValueError for a device that several processes cannot share out, and what
    `torch.distributed` raises where the others cannot be reached.
    """
    # The state is global to the process; another user of accelerate may have left its precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    several = process_count() > 1
    if several:
        if device.type not in ("cpu", "cuda") or device.index is not None:
            raise ValueError(f"Several processes train on cpu or cuda, not on {device}.")
        if device.type == "cuda" and not accelerate.utils.check_cuda_p2p_ib_support():
            os.environ.update(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1")  # these cards have neither
        if network := network_to(os.environ.get("MASTER_ADDR", "")):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", network)
        # The processes' messages go through the CPU and never wait for a GPU.
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        PartialState(cpu=device.type == "cpu", backend=backend, timeout=LONGEST_STEP)
    group = ProcessGroup(several)
    try:
        yield group
        group.leave()
    except BaseException as error:
        group.leave_alone(error)
        raise
    finally:
        group.left.set()
        AcceleratorState._reset_state(reset_partial_state=True)


class ProcessGroup:
    """The other processes of the run, seen by one of them; without others nothing ever waits."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.on_loss: Callable[[ProcessLost], None] = lambda loss: None
        self.mine = Report(socket.gethostname())
        self.heard: list[Report] = []  # at the last meeting, by number
        self.lost: ProcessLost | StopRequested | None = None
        self.alarm = threading.Event()
        self.going = threading.Event()  # this process leaves
        self.left = threading.Event()
        if several:
            self.group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
            self.thread = threading.Thread(target=self._meet, name="processes", daemon=True)
            self.thread.start()

    def check(self) -> None:
        """Raise ProcessLost if another process is gone, StopRequested after a request to end."""
        if self.lost is not None:
            raise self.lost

    def my_turn(self, look: Callable[[], None]) -> None:
        """Wait until the first process on this host is ready, so that it prepares for the others.

        `look` is called now and then. Raises as `check`.
        """
        first = process_number() - int(os.environ.get("LOCAL_RANK", "0"))
        if first != process_number():
            self._wait_for([first], look)

    def all_ready(self, look: Callable[[], None]) -> None:
        """Say that this process is ready to train, and wait for the others. As `my_turn`."""
        self.mine = replace(self.mine, ready=True)
        self._wait_for(range(process_count()), look)

    def check_same(self, view: dict[str, Any]) -> None:
        """Raise ProcessesDiffer unless all processes see the same. All must call it together."""
        if not self.several:
            return
        views = accelerate.utils.gather_object([view])
        differ = [name for name in view if any(other[name] != views[0][name] for other in views)]
        if differ:
            raise ProcessesDiffer(
                f"The processes of this run do not see the same {' and '.join(differ)}. Start it "
                f"with the same settings everywhere, in a run folder that all machines share."
            )

    def least(self, number: int) -> int:
        """The smallest number of all processes. All must call it together."""
        return min(accelerate.utils.gather_object([number])) if self.several else number

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Where the block fails because another process is gone, raise that instead."""
        try:
            yield
        except (RuntimeError, StopRequested) as error:
            # A launcher that sees one process die asks the others to stop.
            by_other = (
                isinstance(error, (StopRequested, dist.DistError)) or type(error) is RuntimeError
            )
            if self.several and by_other and self.alarm.wait(3 * MEETING_SECONDS):
                assert self.lost is not None
                raise self.lost from error
            raise

    def leave(self) -> None:
        """Leave together with the others, after the last thing that all do; may be called again.

        Their end then no longer matters here.
        """
        if self.several and not self.going.is_set():
            self._leave()
            # Now, while the others do so too: they are gone when this process has written all.
            if self.lost is None:
                PartialState().destroy_process_group()

    def leave_alone(self, error: BaseException) -> None:
        """Leave before the others and tell them why."""
        if not self.going.is_set():
            action = error.action if isinstance(error, StopRequested) else None
            self._leave(str(error) or type(error).__name__, action)

    def _leave(self, why: str | None = None, action: str | None = None) -> None:
        if self.several and self.lost is None:
            self.mine = replace(self.mine, leaves=True, why=why, action=action)
            self.going.set()
            while self.thread.is_alive() and not self.alarm.is_set():
                self.thread.join(0.05)
            self.left.set()

    def _wait_for(self, numbers: Iterable[int], look: Callable[[], None]) -> None:
        if not self.several:
            return
        numbers = list(numbers)
        while not (self.heard and all(self.heard[number].ready for number in numbers)):
            self.check()
            look()
            time.sleep(0.05)

    def _meet(self) -> None:
        """The thread."""
        while True:
            mine = self.mine
            reports: list[Any] = [None] * process_count()
            try:
                dist.all_gather_object(reports, mine, group=self.group)
            except (RuntimeError, OSError, EOFError):
                self._lose(ProcessLost("Another process of this run ended or lost its connection."))
                return
            self.heard = reports
            if all(report.leaves for report in reports) or mine.why:
                return
            for report in reports:
                if report.action:
                    self._lose(StopRequested(report.action))
                    return
                if report.why:
                    why = report.why.removesuffix(".")
                    self._lose(ProcessLost(f"The process on {report.host} ended: {why}."))
                    return
            self.going.wait(MEETING_SECONDS)

    def _lose(self, loss: ProcessLost | StopRequested) -> None:
        """The training is to end by itself; where it hangs, it is ended."""
        self.lost = loss
        self.alarm.set()
        if isinstance(loss, ProcessLost) and not self.going.is_set():
            self.on_loss(loss)
        if not self.left.wait(GRACE_SECONDS):
            os._exit(1)
