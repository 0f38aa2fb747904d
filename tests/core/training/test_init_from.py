"""New runs that start from the weights of another: which, with which classes, what cannot fit."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_core.cli.main import main
from diffusion_core.models.unet import Unet, with_classes
from diffusion_core.runs import checkpoint, jobs, origin
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import load_run
from diffusion_core.training.trainer import train
from tests.tiny_runs import CLASSES, DEVICE, LECTURE, TINY, tiny, write_run

SMALL: dict[str, Any] = {"widths": [8], "blocks": 1, "attention_levels": [0]}
# One step that moves no weight.
STILL = {
    "network_args": SMALL,
    "learning_rate": 1e-30,
    "weight_decay": 0.0,
    "steps": 1,
    "sample_every": 0,
    "validate_every": 0,
    "data": "cars:16",
    "validation_count": 0,
    "class_conditional": False,
}


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return checkpoint.load_weights(load_run(run).checkpoint(step))


def answers(tensors: dict[str, Tensor], classes: int, labels: list[int] | None = None) -> Tensor:
    network = Unet(**SMALL, num_classes=classes)
    network.load_state_dict(tensors)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(x, torch.tensor([3, 9]), None if labels is None else torch.tensor(labels))


def test_a_run_starts_from_the_averaged_weights_of_another(tmp_path: Path) -> None:
    other = write_run(tmp_path, "other", 3, 7, config=TINY.replace(network_args=SMALL))
    run = tmp_path / "new"
    train(run, tiny(**STILL, init_from="other"), device=DEVICE)
    then, now = weights(other, 7), weights(run, 1)
    assert then.keys() == now.keys()
    assert all(torch.allclose(then[name], now[name], atol=1e-12) for name in then)
    written = json.loads((run / "config.json").read_text())
    assert (written["init_from"], written["init_average"]) == ("other@7", "main")
    train(tmp_path / "earlier", tiny(**STILL, init_from="other@3"), device=DEVICE)
    then, now = weights(other, 3), weights(tmp_path / "earlier", 1)
    assert torch.allclose(then["stem.weight"], now["stem.weight"], atol=1e-12)


def test_other_averages_can_be_asked_for(tmp_path: Path) -> None:
    settings = STILL | {"steps": 2, "learning_rate": 0.1, "warmup_steps": 0}
    train(tmp_path / "other", tiny(**settings, ema_decays={"short": 0.05}), device=DEVICE)
    train(tmp_path / "new", tiny(**STILL, init_from="other", init_average="short"), device=DEVICE)
    there = load_run(tmp_path / "other").checkpoint(2)
    main, short = (checkpoint.load_weights(there, name) for name in ("main", "short"))
    found = weights(tmp_path / "new", 1)["stem.weight"]
    assert torch.equal(found, short["stem.weight"])
    assert not torch.equal(found, main["stem.weight"])
    with pytest.raises(ConfigError, match=r"called 'long'; init_average can be main or short\."):
        jobs.create(tmp_path, "x", tiny(**STILL, init_from="other", init_average="long"))


def test_an_average_is_asked_for_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "other", tiny(**STILL, ema_decays={"short": 0.05}), device=DEVICE)
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path))

    def start(name: str, *options: str) -> str:
        code = main(["train", "--run", str(tmp_path / name), "--quiet", *options])
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    asked = ["--init-from", "other", "--init-average", "short"]
    assert "the weights of other, step 1, average short." in start("new", *asked)
    assert load_run(tmp_path / "new").config == tiny(
        **STILL, ema_decays={"short": 0.05}, init_from="other@1", init_average="short"
    )
    # The settings of a run that took another average bring its average only with its weights.
    assert "the weights of other, step 1.\n" in start("b", "--like", "new", "--init-from", "other")
    assert "leave one of them out" in start("c", *asked, "--set", "init_average=main")
    assert "name that run with init_from" in start("d", *asked[2:])
    assert "keeps its settings" in start("new", "--resume", *asked[2:])


def test_what_becomes_of_the_other_run_does_not_matter(tmp_path: Path) -> None:
    """A run that waits, or that is resumed before its first checkpoint, has a copy."""
    other = write_run(tmp_path, "other", 7, config=TINY.replace(network_args=SMALL))
    then = weights(other, 7)
    run = jobs.create(tmp_path, "new", tiny(**STILL, init_from="other@7")).path
    shutil.rmtree(other)
    shutil.copytree(run, tmp_path / "resumed")
    train(run, device=DEVICE)
    train(tmp_path / "resumed", resume=True, device=DEVICE)
    for path in (run, tmp_path / "resumed"):
        assert torch.allclose(weights(path, 1)["stem.weight"], then["stem.weight"], atol=1e-12)


def test_classes_of_the_same_name_keep_their_embedding(tmp_path: Path) -> None:
    """TINY has learned van, bus and coupé; the cars have eight kinds."""
    other = write_run(tmp_path, "other", 7)
    run = tmp_path / "new"
    train(run, tiny(**STILL | {"class_conditional": True}, init_from="other"), device=DEVICE)
    classes = load_run(run).details.classes
    then, now = (
        weights(path, step)["label_embedding.weight"] for path, step in ((other, 7), (run, 1))
    )
    assert now.shape == (len(classes) + 1, 32)
    for name, row in zip((*classes, "any class"), now, strict=True):
        kept = CLASSES.index(name) if name in CLASSES else 3
        assert torch.allclose(row, then[kept], atol=1e-12), name
    assert set(CLASSES) & set(classes)


def test_what_a_network_answers_for_any_class_stays_when_classes_come_or_go() -> None:
    torch.manual_seed(0)
    network = Unet(**SMALL, num_classes=2)
    torch.nn.init.normal_(network.output.weight)
    before = network.state_dict()
    same = functools.partial(torch.allclose, atol=1e-5, rtol=1e-4)
    without = with_classes(before, ("a", "b"), ())
    assert same(answers(before, 2), answers(without, 0))
    again = with_classes(without, (), ("c", "d", "e"))
    for labels in (None, [0, 2]):  # nothing is known of them yet
        assert same(answers(without, 0), answers(again, 3, labels))
    swapped = with_classes(before, ("a", "b"), ("b", "new", "a"))
    assert same(answers(before, 2, [0, 1]), answers(swapped, 3, [2, 0]))
    assert same(answers(before, 2), answers(swapped, 3))
    assert same(answers(before, 2), answers(swapped, 3, [1, 1]))
    assert with_classes(without, (), ()).keys() == without.keys()
    never = with_classes(before, ("a", "b"), ("a",), any_class_learned=False)
    mean = before["label_embedding.weight"][:2].mean(0)
    assert torch.equal(never["label_embedding.weight"][1], mean)


def test_images_size_objective_and_schedule_may_differ(tmp_path: Path) -> None:
    write_run(tmp_path, "other", 7)
    other = {"prediction_type": "epsilon", "image_size": 24, "schedule": {"timesteps": 9}}
    train(tmp_path / "new", tiny(**STILL | other, init_from="other"), device=DEVICE)
    flow = tiny(**STILL | {"prediction_type": "flow_prediction"}, init_from="new")
    assert train(tmp_path / "flow", flow, device=DEVICE) == "finished"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network_args": SMALL | {"widths": [16]}}, r"widths is 8 there and 16 here"),
        ({"network_args": SMALL | {"blocks": 2}}, "blocks is 1 there and 2 here"),
        ({"network_args": SMALL | {"patch": 1}}, "patch is 2 there and 1 here"),
        ({"channels": 1}, "channels is 3 there and 1 here"),
        ({"network": "lecture", "network_args": {"widths": [8]}}, "network is unet there and lect"),
        ({"init_from": "other@4"}, r"no checkpoint of step 4\. The latest steps with weights: 7"),
        ({"init_from": "nobody"}, "There is no run nobody whose weights"),
        ({"init_from": "empty"}, "empty has no usable weights to start from"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, settings: dict, sentence: str
) -> None:
    write_run(tmp_path, "other", 7)
    write_run(tmp_path, "empty")
    config = tiny(**STILL | {"init_from": "other"} | settings)
    with pytest.raises(ConfigError, match=sentence):
        jobs.create(tmp_path, "new", config)
    with pytest.raises(ConfigError, match=sentence):
        train(tmp_path / "new", config, device=DEVICE)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["other@x", "other@" + "9" * 30, "@3", "other@", "other@-1"])
def test_a_text_that_is_no_run_and_step_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"init_from is .*; use RUN or RUN@STEP, STEP a whole"):
        tiny(init_from=text)


def test_the_lectures_network_starts_from_its_own_kind(tmp_path: Path) -> None:
    write_run(tmp_path, "other", 7, config=LECTURE)
    changed = LECTURE.replace(**STILL | {"network_args": LECTURE.network_args}, batch_size=4)
    run = tmp_path / "new"
    train(run, changed.replace(init_from="other"), device=DEVICE)
    assert torch.allclose(
        weights(run, 1)["conv0.weight"], weights(tmp_path / "other", 7)["conv0.weight"], atol=1e-12
    )


def test_init_from_on_the_command_line_takes_the_other_runs_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "other", 3, 7, config=tiny(**STILL))
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path))
    train_new = ["train", "--run", str(tmp_path / "new"), "--quiet"]
    assert main([*train_new, "--init-from", "other@3", "--data", "cars:17"]) == 0
    assert "Starts from the weights of other, step 3." in capsys.readouterr().out
    config = load_run(tmp_path / "new").config
    assert config == tiny(**STILL | {"data": "cars:17"}, init_from="other@3")
    # In a folder elsewhere the origin has its path; a run like that one too.
    for name, more in (("a", ["--init-from", "other"]), ("b", ["--like", "new"])):
        assert main(["train", "--run", str(tmp_path / "far" / name), "--quiet", *more]) == 0
    found = [load_run(tmp_path / "far" / name).config.init_from for name in "ab"]
    assert found == [f"{tmp_path / 'other'}@7", f"{tmp_path / 'other'}@3"]
    assert origin.origin_title(load_run(tmp_path / "far" / "b").config) == "other, step 3"
    capsys.readouterr()
    assert main(["train", "--run", str(tmp_path / "x"), "--init-from", "other", "--preset", "base"])
    assert "network_args.widths is 8 there and 128, 192, 256, 384 here" in (capsys.readouterr().err)
    assert main([*train_new, "--resume", "--init-from", "other"]) == 2
    assert "A resumed run keeps its settings" in capsys.readouterr().err
    assert main([*train_new[:2], str(tmp_path / "y"), "--init-from", "nobody"]) == 1
    assert capsys.readouterr().err.endswith("nobody.\n")
