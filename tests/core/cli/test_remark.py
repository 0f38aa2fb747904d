"""`note`, `tag`, `star`, `decide` and `remarks`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psutil
import pytest

from diffusion_core.cli.main import main
from diffusion_core.media.images import png
from diffusion_core.runs import remarks
from diffusion_core.runs.remarks import RUN, Kind, Subject, read_remarks
from diffusion_core.sampling.capabilities import EACH_IN_TURN
from diffusion_core.sampling.metadata import Kind as FileKind
from diffusion_core.sampling.metadata import NoSettings, entries, read, subject_of
from diffusion_core.sampling.spec import SamplingSpec
from tests.tiny_runs import CLASSES, write_run

ME = psutil.Process().username()


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "mine", 40)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_all_is_said_listed_edited_and_deleted(run: Path, capsys) -> None:
    assert said(capsys, "remarks", "mine") == "mine has no remarks.\n"
    answer = said(capsys, "note", "mine", "Wheels are\n**round**.", "--step", "40")
    assert answer.startswith("mine: note ") and answer.endswith(" of step 40.\n")
    said(capsys, "tag", "mine", "good", "for the talk")
    said(capsys, "star", "mine")
    said(capsys, "decide", "mine", "promote")
    found = read_remarks(run)
    [note] = found.about(Subject(step=40))
    assert (note.kind, note.by) == ("note", ME)
    assert (found.tags(), found.stars(), found.decision()) == (
        ["for the talk", "good"],
        1,
        "promote",
    )

    first, second, *rest = said(capsys, "remarks", "mine").splitlines()
    assert first.startswith(f"{note.id[:8]}  20")
    assert first.endswith(f"  note of step 40 by {ME}: Wheels are")
    assert second == "          **round**."
    assert [each.partition("  ")[2][18:] for each in rest] == [
        f"tag of run by {ME}: good",
        f"tag of run by {ME}: for the talk",
        f"star of run by {ME}",
        f"decision of run by {ME}: promote",
    ]

    said(capsys, "note", "mine", "No, square.", "--edit", note.id[:6])
    assert main(["remarks", "mine", "--json", "--delete", found.current[1].id]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"mine: tag {found.current[1].id[:8]} of run is deleted.\n"
    listed = json.loads(printed.out)
    assert [each["kind"] for each in listed] == ["note", "tag", "star", "decision"]
    assert listed[0] == {
        "id": note.id,
        "kind": "note",
        "subject": {"step": 40},
        "text": "No, square.",
        "by": ME,
        "time": note.time,
        "edited": True,
    }


def test_what_somebody_else_said_can_be_changed_by_whoever_can_write_to_the_folder(
    run: Path, capsys
) -> None:
    note = remarks.add(run, Kind.NOTE, "one", RUN, "ann@lab.org")
    said(capsys, "remarks", "mine", "--delete", note.id)
    [gone] = read_remarks(run).every
    assert [line.by for line in gone.lines] == ["ann@lab.org", ME]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("note nobody hello", 1, "There is no run"),
        ("note mine hello --step 41", 2, "--step is 41; it must be from 0 to 40."),
        ("note mine hello --step -1", 2, "--step is -1; it must be from 0 to 40."),
        ("note mine hello --edit ab", 1, "There is no remark 'ab'."),
        ("note mine hello --edit ab --step 4", 2, "--edit changes the text alone;"),
        ("tag mine a,b", 1, "The tag is 'a,b'; it must be"),
        ("remarks mine --delete ab", 1, "There is no remark 'ab'."),
        ("star mine --image no.png", 1, "no.png: No such file or directory."),
    ],
)
def test_a_wrong_word_is_named(run: Path, capsys, words: str, code: int, sentence: str) -> None:
    assert main(words.split()) == code
    assert capsys.readouterr().err.startswith(sentence)
    assert read_remarks(run).every == ()


def test_a_broken_file_is_said_after_what_could_be_read(run: Path, capsys) -> None:
    remarks.add(run, Kind.TAG, "good")
    with open(run / remarks.FILE, "a") as file:
        file.write('{"id')
    assert main(["remarks", "mine"]) == 1
    printed = capsys.readouterr()
    assert printed.out.endswith(f"tag of run by {ME}: good\n")
    assert printed.err == (
        "Remarks of mine cannot be read in full: remarks.jsonl is not readable JSON.\n"
    )


# ---------------------------------------------------------------- of an image

SPEC = SamplingSpec(run="mine", step=40, n=9, seed=7, classes=CLASSES, label=EACH_IN_TURN)


def write_image(path: Path, spec: SamplingSpec, image: int | None, **more) -> Path:
    path.write_bytes(png(np.zeros((4, 4, 3), np.uint8), text=entries(spec, image, **more)))
    return path


def test_an_image_is_named_by_its_file(run: Path, tmp_path: Path, capsys) -> None:
    file = write_image(tmp_path / "bus.png", SPEC, 4)
    said(capsys, "star", "mine", "--image", str(file))
    [star] = read_remarks(run).current
    assert star.subject == subject_of(read(file.read_bytes()))
    assert (star.subject.step, star.subject.image, star.subject.seed) == (40, 4, 7)
    assert f"step 40, image 5, seed 7, settings {star.subject.settings}" in str(star.subject)


def test_the_image_of_another_run_is_refused(run: Path, tmp_path: Path, capsys) -> None:
    file = write_image(tmp_path / "bus.png", SPEC.replace(run="other"), 4)
    assert main(["star", "mine", "--image", str(file)]) == 2
    assert capsys.readouterr().err.endswith("bus.png is an image of other.\n")


def named(tmp_path: Path, spec: SamplingSpec, image: int | None, **more) -> Subject:
    return subject_of(read(write_image(tmp_path / "x.png", spec, image, **more).read_bytes()))


def test_an_image_has_one_name_whatever_was_generated_with_it(tmp_path: Path) -> None:
    name = named(tmp_path, SPEC, 4)
    assert SPEC.class_of(4) == "bus"
    for same in (SPEC.replace(n=5), SPEC.replace(label="bus"), SPEC.replace(run="renamed")):
        assert named(tmp_path, same, 4) == name
    for other in (
        SPEC.replace(label="van"),
        SPEC.replace(sampler="ddim"),
        SPEC.replace(steps=21),
        SPEC.replace(seed=8),
        SPEC.replace(step=41),
    ):
        assert named(tmp_path, other, 4) != name
    assert named(tmp_path, SPEC, 4, page={"mode": "edit", "strength": 0.5}) != name
    assert named(tmp_path, SPEC, 4, kind=FileKind.STRIP) == name  # how the same image came to be


def test_a_file_of_several_images_names_none(tmp_path: Path) -> None:
    assert named(tmp_path, SPEC.replace(n=1), None) == named(tmp_path, SPEC, 0)
    for spec, more in ((SPEC, {}), (SPEC.replace(n=1), {"kind": FileKind.OTHER})):
        with pytest.raises(NoSettings, match=r"^The file shows several images; "):
            named(tmp_path, spec, None, **more)
