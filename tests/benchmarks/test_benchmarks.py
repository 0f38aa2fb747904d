"""What the benchmarks work out from what they measured; nothing here times anything."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from benchmarks import sampling
from benchmarks.big_store import own_groups
from benchmarks.contenders import NETWORKS, Clock, Job, read_result, train_ours
from benchmarks.layers import rates
from benchmarks.pages import Times
from benchmarks.pages import table as pages_table
from benchmarks.photographs import HEIGHT, WIDTH, texture, write_photographs
from benchmarks.recipes import RECIPES, settings_of
from benchmarks.run_index import FILTER, make_run, measure
from benchmarks.step_profile import BACKWARD, FORWARD, OTHER, kind_of, lecture_flops
from benchmarks.timing import cpu_line, in_turns
from benchmarks.training import table
from diffusion_core.data.sources.folder import walk
from diffusion_core.models.convolutions import DEPTH, GEMM, PLAIN, Geometry, Way, Ways
from diffusion_core.review.index import Index
from diffusion_core.review.query import parse_filter
from diffusion_core.runs.presets import preset
from diffusion_core.sampling.sample import LECTURE_SAMPLING, sample
from diffusion_core.training.layer_ways import Shape
from tests.tiny_runs import LECTURE


def test_contenders_take_turns_and_the_median_of_each_is_kept() -> None:
    order: list[str] = []
    values = {"ours": iter([3.0, 100.0, 1.0]), "theirs": iter([5.0, 4.0, 6.0])}

    def measure(name: str) -> float:
        order.append(name)
        return next(values[name])

    found = in_turns(3, {name: functools.partial(measure, name) for name in values})
    assert found == {"ours": 3.0, "theirs": 5.0}
    assert order == ["ours", "theirs"] * 3


def tiny_bench() -> sampling.Bench:
    return sampling.make_bench(LECTURE, torch.device("cpu"))


def test_diffusers_generates_the_same_image_with_our_network_as_we_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = tiny_bench()
    start = torch.randn(2, 3, 32, 32)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: start)
    theirs = sampling.sample_with_diffusers(bench, "dpmpp_2m", 2, 4)
    monkeypatch.undo()
    ours = sample(
        bench.plain, bench.schedule, 2, "dpmpp_2m", 4, x_T=start, clip_x0=False, shape=(3, 32, 32)
    )
    assert torch.allclose(theirs.clamp(-1, 1), ours, atol=1e-3)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_diffusers_pipelines_take_our_network(method: str) -> None:
    images = sampling.sample_with_diffusers(tiny_bench(), method, 2, 3)
    assert images.shape == (2, 3, 32, 32)
    assert images.isfinite().all()


def test_the_loop_that_we_compare_with_is_the_lecture_s() -> None:
    """As our own sampler with the lecture's options, given the same noises."""
    bench = tiny_bench()
    torch.manual_seed(5)
    theirs = sampling.lecture_loop(bench, LECTURE.schedule["timesteps"])
    torch.manual_seed(5)
    ours = sample(
        bench.plain,
        bench.schedule,
        1,
        **LECTURE_SAMPLING | {"training_mode": False},
        noise=lambda: torch.randn(1, 3, 32, 32),
    )
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_the_table_of_sampling_says_how_many_times_faster_ours_is() -> None:
    bench = tiny_bench()
    found = {("lecture", "ddpm", 1): 40.0}
    for method in sampling.TITLES:
        for n in (1, 16):
            found["diffusers", method, n], found["ours", method, n] = 4.0, 0.5
    lines = sampling.table("lecture", bench, (1, 16), found).splitlines()
    assert len(lines) == 8
    assert lines[-1] == (
        "| lecture | DPM-Solver++, 20 steps | 16 | 40.00 s | 4.00 s | 0.500 s | 80.0 | 8.0 |"
    )


def test_the_loop_is_compared_with_the_same_calls_of_the_network() -> None:
    calls = []
    bench = tiny_bench()
    bench.fast.register_forward_hook(lambda *_: calls.append(1))
    shares = sampling.overheads(bench, 1, 3)
    assert shares.keys() == sampling.TITLES.keys()
    assert len(calls) == 3 * 3 * 3  # to record the calls, in the loop, alone
    assert all(math.isfinite(share) for share in shares.values())


def test_each_row_of_the_table_compares_two_trainers_of_the_same_network() -> None:
    speeds = {
        ("lecture", "ours"): 20.0,
        ("lecture", "lecture"): 4.0,
        ("diffusers", "ours"): 3.0,
        ("diffusers", "diffusers"): 2.0,
    }
    lines = table(speeds, [("lecture", "lecture"), ("diffusers", "diffusers")]).splitlines()
    assert lines[2] == "| SimpleUnet | the lecture's loop | 4.00 | 20.00 | 5.00 |"
    assert lines[3] == "| UNet2DModel | diffusers + accelerate | 2.00 | 3.00 | 1.50 |"


def test_the_result_is_read_behind_whatever_the_peer_prints() -> None:
    text = 'Epoch 0 | step 000 Loss: 0.7\n{"seconds": 2.0, "images": 64}\n'
    assert read_result(text) == 32.0


@pytest.mark.parametrize(
    "text", ["", "Loss: 0.7\n", '{"seconds": 0, "images": 64}', '{"images": 64}', "[1]"]
)
def test_output_without_a_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the output of a finished run"):
        read_result(text)


def test_the_clock_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(Job("", batch=4, warmup=2, steps=3, device="cpu"))
    times = iter([10.0, 16.0])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    assert [clock.tick() for _ in range(5)] == [False, False, False, False, True]
    assert clock.result() == {"seconds": 6.0, "images": 12}


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_our_trainer_trains_the_network_of_another_library(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever precision the process used before."""
    Accelerator(cpu=True, mixed_precision=precision)

    class Theirs(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            Theirs.calls += 1
            return self.layer(x)

    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(NETWORKS, "lucidrains", Theirs)
    write_photographs(tmp_path / "files", 4)
    job = Job(str(tmp_path / "files"), batch=2, warmup=1, steps=2, device="cpu")
    result = train_ours("lucidrains", job)
    assert result["images"] == 4
    assert result["seconds"] > 0
    assert Theirs.calls == 4  # warm-up, timed, and the last step, which is not timed


def test_a_layer_is_said_by_its_rates_in_each_way_that_it_has() -> None:
    shape = Shape(False, Geometry(3, 1, 1), 100, (8, 8), 100, 10, torch.float32, True)
    times: list[dict[Way, float]] = [{PLAIN: 1e-3, GEMM: 2e-3}] * 3
    assert shape.flop == 2 * 9 * 100 * 100 * 10 * 64  # 0.1152 GFLOP
    assert rates(shape, times, Ways()).split("/") == ["   115", "   115"]
    assert rates(shape, times, Ways(PLAIN, GEMM, GEMM)).split("/") == ["   115", "    58"]
    assert rates(shape, times, Ways(DEPTH, DEPTH, DEPTH)).strip() == "–"


def test_the_photographs_are_of_the_lecture_s_size_and_in_two_parts(tmp_path: Path) -> None:
    size = write_photographs(tmp_path, 4)
    files = walk(tmp_path).files
    assert sorted(file.relative_to(tmp_path).parts[0] for file in files) == [
        "test",
        "test",
        "train",
        "train",
    ]
    # A smooth image of this size would be a fifth of what a photograph takes.
    assert 60_000 < size < 200_000


def test_the_texture_has_the_spectrum_of_a_photograph() -> None:
    grain = texture(np.random.default_rng(1))
    assert grain.shape == (HEIGHT, WIDTH)
    power = np.abs(np.fft.rfft2(grain)) ** 2
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    low, high = ((frequency > f) & (frequency < 1.1 * f) for f in (0.02, 0.2))
    slope = math.log(power[high].mean() / power[low].mean()) / math.log(10)
    assert slope == pytest.approx(-2, abs=0.1)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["aten::mkldnn_convolution", "aten::convolution", "aten::conv2d"], FORWARD),
        (["aten::convolution_backward", "ConvolutionBackward0"], BACKWARD),
        (["aten::copy_", "aten::to", "Optimizer.step#Adam.step"], "optimizer"),
        (["aten::copy_", "aten::to", "aten::conv2d"], FORWARD),
        (["aten::native_batch_norm", "aten::batch_norm"], "batch norm"),
        (["aten::native_batch_norm_backward", "NativeBatchNormBackward0"], "batch norm"),
        (["aten::randn", "benchmark: data"], "data"),
        (["aten::_foreach_lerp_", "benchmark: average"], "averaged weights (EMA)"),
        (["aten::linalg_vector_norm"], "gradient norm"),
        (["aten::cat"], OTHER),
    ],
)
def test_an_operation_counts_to_the_kind_of_work_that_it_was_called_for(
    names: list[str], kind: str
) -> None:
    assert kind_of(names) == kind


def test_the_operations_of_the_lecture_s_network_are_counted() -> None:
    flops = lecture_flops()
    assert flops.total == pytest.approx(34.4e9, rel=0.01)
    assert flops.forward == pytest.approx(11.46e9, rel=0.01)
    assert flops.forward + flops.backward <= flops.total


def test_the_processor_is_read_from_its_description() -> None:
    text = "processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu amx_bf16\nmodel name : other\n"
    assert cpu_line("model name", text) == "AMD EPYC"
    assert cpu_line("flags", text) == "fpu amx_bf16"
    assert cpu_line("bogomips", text) == ""


def test_a_memory_group_is_looked_for_where_each_version_of_the_kernel_allows_it() -> None:
    first = "5:cpu,cpuacct:/a\n4:memory:/jobs/one\n0::/\n"
    assert own_groups(first, Path("/g")) == [Path("/g/memory/jobs/one"), Path("/g")]
    assert own_groups("0::/user/app.scope\n", Path("/g")) == [Path("/g/user")]


def test_the_runs_of_the_index_s_benchmark_are_real_ones(tmp_path: Path) -> None:
    for number in range(8):
        make_run(tmp_path / f"run-{number}", number, rows=140)
    index = Index(tmp_path)
    rows = index.rows()
    assert [row.problem for row in rows] == [""] * 8
    assert all({"best_validation_loss", "quality.frechet"} <= row.values.keys() for row in rows)
    assert 0 < sum(map(parse_filter(FILTER), (row.values for row in rows))) < 8
    assert set(measure(tmp_path, times=1)) >= {"rebuilt", "opened", "again", "filter"}


def test_no_two_recipes_are_the_same() -> None:
    """Whatever the preset has become since they were measured."""
    made = [settings_of(preset("tiny"), recipe) for recipe in RECIPES.values()]
    assert all(one != other for k, one in enumerate(made) for other in made[:k])


def test_a_job_survives_its_way_into_the_other_process() -> None:
    from benchmarks.contenders import command

    job = Job("/tmp/with space", batch=4, warmup=1, steps=2, device="cpu")
    arguments = command("python", "lecture", "ours", job)
    assert arguments[:5] == ["python", "-m", "benchmarks.contenders", "lecture", "ours"]
    assert Job(**json.loads(arguments[5])) == job


def test_a_page_has_repainted_when_all_that_follows_every_key_has() -> None:
    times = Times(load=[2000.0, 1000.0, 3000.0], kilobytes=[5000.0], shift=[0.0, 0.1])
    # Container 3 is a film, which changes by itself now and then.
    times.presses = [{"1": 40.0, "2": 60.0}, {"1": 30.0, "2": 90.0, "3": 400.0}]
    assert times.keys() == [60.0, 90.0]
    assert times.keys(min) == [40.0, 30.0]
    bare = Times(load=[1000.0], kilobytes=[4000.0], shift=[0.0], presses=[{"1": 50.0}])
    still = Times(load=[1500.0], kilobytes=[9.0], shift=[0.0])
    assert pages_table({"bare": bare, "schedule": times, "": still})[2:] == [
        "| bare | 1.00 | 1.00 | 50 | 1.00 | 50 | 1.00 | 50 | 4,000 | 0.000 |",
        "| schedule | 2.00 | 2.00 | 75 | 1.50 | 90 | 1.80 | 35 | 5,000 | 0.100 |",
        "| home | 1.50 | 1.50 | – | – | – | – | – | 9 | 0.000 |",
    ]
