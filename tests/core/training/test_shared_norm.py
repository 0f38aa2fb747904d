"""BatchNorm over the images of two processes, against PyTorch's over all of them in one."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from diffusion_core.training.shared_norm import SharedBatchNorm, share_norms

PROCESSES, CHANNELS = 2, 5


class Meeting:
    """Threads in the place of processes: each puts a tensor in, and gets all."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(PROCESSES, timeout=30)
        self.rank = threading.local()
        self.given: dict[int, Tensor] = {}

    def exchange(self, tensor: Tensor) -> list[Tensor]:
        self.given[self.rank.value] = tensor.clone()
        self.barrier.wait()
        found = [self.given[rank] for rank in range(PROCESSES)]
        self.barrier.wait()
        return found

    def all_gather(self, each: list[Tensor], own: Tensor) -> None:
        for place, value in zip(each, self.exchange(own), strict=True):
            place.copy_(value)

    def all_reduce(self, own: Tensor) -> None:
        own.copy_(torch.stack(self.exchange(own)).sum(dim=0))

    def run(self, work: Callable[[int], list[Tensor]]) -> list[list[Tensor]]:
        """What each process returns for its number."""

        def as_process(rank: int) -> list[Tensor]:
            self.rank.value = rank
            return work(rank)

        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(pool.map(as_process, range(PROCESSES)))


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Meeting:
    met = Meeting()
    monkeypatch.setattr(dist, "get_world_size", lambda: PROCESSES)
    monkeypatch.setattr(dist, "all_gather", met.all_gather)
    monkeypatch.setattr(dist, "all_reduce", met.all_reduce)
    return met


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(CHANNELS)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)], ids=str
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_two_halves_of_a_batch_are_normalized_as_the_whole(
    meeting: Meeting, dtype: torch.dtype, tolerance: float, order: torch.memory_format
) -> None:
    torch.manual_seed(0)
    whole = norm()
    # The halves differ in mean and spread, so that the statistics of one would not do.
    x = torch.randn(8, CHANNELS, 4, 3) * torch.linspace(0.5, 2, 8)[:, None, None, None] + 3
    x[4:] += 2
    x, grad = (v.to(dtype).contiguous(memory_format=order) for v in (x, torch.randn_like(x)))
    layers = [copy.deepcopy(whole) for _ in range(PROCESSES)]

    given = x.clone().requires_grad_()
    wanted = whole(given)
    wanted.backward(grad)

    def work(rank: int) -> list[Tensor]:
        share_norms(layers[rank])
        half = slice(4 * rank, 4 * rank + 4)
        own = x[half].clone().requires_grad_()
        y = layers[rank](own)
        y.backward(grad[half])
        assert y.dtype == own.grad.dtype == dtype
        return [y, own.grad]

    halves = meeting.run(work)
    for found, expected in zip(zip(*halves, strict=True), (wanted, given.grad), strict=True):
        torch.testing.assert_close(torch.cat(found), expected, rtol=tolerance, atol=tolerance)
    for name, parameter in whole.named_parameters():
        shares = [layer.get_parameter(name).grad for layer in layers]
        assert None not in shares
        torch.testing.assert_close(sum(shares), parameter.grad, rtol=tolerance, atol=tolerance)
    for name, buffer in whole.named_buffers():
        for layer in layers:
            torch.testing.assert_close(layer.get_buffer(name), buffer)


def test_in_evaluation_it_takes_the_kept_statistics_and_meets_nobody() -> None:
    layer = norm().eval()
    x = torch.randn(2, CHANNELS, 4, 4)
    wanted = layer(x)
    share_norms(layer)
    assert torch.equal(layer(x), wanted)


def test_every_batch_norm_of_a_network_is_shared_and_keeps_its_weights() -> None:
    inner = norm()
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.Sequential(inner), nn.GroupNorm(1, 5))
    before = network.state_dict()
    share_norms(network)
    assert [type(m) for m in network.modules()].count(SharedBatchNorm) == 1
    assert type(inner) is SharedBatchNorm
    assert network.state_dict().keys() == before.keys()
