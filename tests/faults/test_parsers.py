"""What comes from outside is read or refused in a sentence of ours, whatever it is."""

from __future__ import annotations

import io
import json
import re
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, Phase, given

from dashboard.services.settings import PREFIX
from dashboard.ui.controls import Toggle
from tests.faults.odd_inputs import LONG
from tests.faults.parsers import PARSERS, Parser
from tests.faults.parsers.addresses import CONTROLS, OF_SPEC, read_link

pytestmark = pytest.mark.usefixtures("true_python")
ALL = 100_000  # inputs of the long test
MEMORY = 1024  # MiB that the inputs of a parser may take
# What Python, pydantic, PyTorch and Pillow say.
FOREIGN = re.compile(
    r"Traceback|has no attribute|object is not|validation error|NoneType|pydantic|<class|Errno|"
    r"unhashable|Expecting|could not convert|invalid literal|unexpected keyword|positional arg|"
    r"too large to convert|codec can't|torch\.|PIL|Input should|JSON serializable|maximum "
    r"recursion|Exceeds the limit|embedded null|Unable to|invalid \w+ value"
)


def assert_is_a_sentence(text: str, longest: int) -> None:
    assert text.isprintable(), text  # one line, and nothing that turns it around
    assert len(text) <= longest, text
    assert text.endswith((".", "…", "?")), text
    ours = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)  # without the values that it quotes
    assert not FOREIGN.search(ours), text


def read_all(parser: Parser, examples: int, profile: str, folder: Path) -> Counter[str]:
    """How many inputs were read and refused."""
    counts: Counter[str] = Counter()

    @hypothesis.settings(
        hypothesis.settings.get_profile(profile),
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(parser.inputs)
    def is_read_or_refused(given: Any) -> None:
        counts["inputs"] += 1
        try:
            value = parser.read(given, folder)
        except parser.refusal as error:
            assert_is_a_sentence(str(error), parser.longest)
            counts["refused"] += 1
            return
        counts["read"] += 1
        if parser.again is not None and value is not None:
            assert parser.again(value, folder) == value

    is_read_or_refused()
    return counts


@pytest.mark.parametrize("name", PARSERS)
def test_odd_input_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    counts = read_all(parser, parser.few, "same", tmp_path)
    assert counts["read"] + counts["refused"] == counts["inputs"] >= parser.few


def file_of(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


BIG = "1" + "0" * 400
ODD_CLASSES = json.dumps({"run": "a", "step": 1, "classes": ["a\nb"], "label": "c"})
TAKES = "is no data set: cars:N takes a number of images from 1 to 10,000,000."
ODD_CHANGES = ('{"changes": [{"step": 1, "time": 1.0, "settings": {"', '": 1}}]}')
BIG_CHANGES = ('{"changes": [{"step": 1, "time": 1.0, "settings": {"learning_rate": ', "}}]}")
# What was found: the input, and how the sentence begins; empty where it can be used.
FOUND: dict[str, list[tuple[Any, str]]] = {
    "status.json": [
        (f'{{"loss": {BIG}}}'.encode(), f"status.json: loss is {BIG[:40]}…; it must be a number."),
    ],
    "changes.json": [
        (LONG.join(ODD_CHANGES).encode(), f"changes.json: changes.0.settings.{'x' * 61}… is"),
        (r"a\nb".join(ODD_CHANGES).encode(), r"a\nb cannot change in a run; start a new one with"),
        (BIG.join(BIG_CHANGES).encode(), f"learning_rate is {BIG[:40]}…; it must be"),
    ],
    "quality result": [
        (b'{"metrics": {"frechet": 2}}', "step-00000040-a.json: order is missing."),
    ],
    "settings of sampling": [
        (ODD_CLASSES, r"There is no class 'c'; choose one of a\nb."),
    ],
    "name of a data set": [
        ("cars:a\nb", rf"'cars:a\nb' {TAKES}"),
        (f"cars:{LONG}", f"'cars:{'x' * 34}…' {TAKES}"),
        ("folder:~nobody-here", "There is no folder ~nobody-here; give the folder of the images."),
        ("folder:\ud800", r"There is no folder \ud800; give the folder of the images."),
        (f"folder:{LONG}", f"There is no folder {LONG[:200]}…; give the folder of the images."),
    ],
    "settings of the app": [
        (b"\xff", "secrets.toml cannot be read (it is not UTF-8); correct it."),
        (b"a = " + b"[" * 5000, "secrets.toml cannot be read (it is not TOML); correct it."),
        (b"\na = x\n", "secrets.toml cannot be read (line 2 is not TOML); correct it."),
        (
            f'{PREFIX}RUNS_DIR = "~nobody-here"'.encode(),
            "'~nobody-here' is not a path that can be used.",
        ),
        (
            f"{PREFIX}MAX_STEPS = 0x{'f' * 5000}".encode(),
            f"{PREFIX}MAX_STEPS is 'too large'; it must be a whole number.",
        ),
    ],
    "words of a command": [(["train", "--run", "\0"], "")],
    "names in a run folder": [
        ([("samples", f"step-{'9' * 30}.png")], ""),
        ([(".trash", f"{'9' * 30}-run")], ""),
    ],
    "state": [(file_of({}), "step-00000040.pt does not hold the state of a training.")],
    "decoded images": [
        (("labels.npy", b""), ""),
        (("images.npy", b"\x93NUMPY"), ""),
        (("meta.json", b"[" * 5000), ""),
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_said_in_a_sentence(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    for odd, sentence in FOUND[name]:
        if not sentence:
            parser.read(odd, tmp_path)
            continue
        with pytest.raises(parser.refusal) as refused:
            parser.read(odd, tmp_path)
        assert str(refused.value).startswith(sentence)
        assert_is_a_sentence(str(refused.value), parser.longest)


def test_every_switch_is_read_from_a_link(tmp_path: Path) -> None:
    """Whatever record its field belongs to."""
    switches = [k for k, control in enumerate(CONTROLS) if isinstance(control, Toggle)]
    assert len(switches) > 10
    assert all(read_link((k, ["TRUE"]), tmp_path) is True for k in switches)


def test_controls_of_the_sampling_page_are_checked_against_the_spec() -> None:
    checked = {control.field for control in CONTROLS if id(control) in OF_SPEC}
    assert {"n", "steps", "seed", "eta", "guidance_scale", "guidance_interval", "exact"} <= checked


@pytest.mark.long
@pytest.mark.parametrize("name", PARSERS)
def test_a_hundred_thousand_inputs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = PARSERS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = read_all(parser, parser.many, "long", tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    with capsys.disabled():
        print(f"\n{name:24} {counts}, {grown} MiB")
    assert sum(each.many for each in PARSERS.values()) >= ALL
    assert counts["inputs"] >= parser.many and grown < MEMORY
