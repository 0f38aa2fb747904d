"""Data sets out of zip files of any origin: whole or not at all, and nothing elsewhere."""

from __future__ import annotations

import io
import os
import stat
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.data import uploaded
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources.uploaded import folder_of, names
from diffusion_core.data.store import build_store, count, look
from diffusion_core.files import DiskFull
from diffusion_core.zips import ArchiveError


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


def image(seed: int, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(out, format)
    return out.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            entry.compress_type, entry.external_attr = method, mode << 16
            archive.writestr(entry, data)
    return out.getvalue()


def take(data: bytes, name: str = "mine") -> uploaded.Uploaded:
    return uploaded.take(io.BytesIO(data), name)


MIXED = {
    "pets/cat/1.png": image(1),
    "pets/cat/2.JPG": image(2, "JPEG"),
    "pets/dog/1.png": image(3),
    "pets/dog/broken.png": b"\x89PNG\r\n\x1a\nnothing",
    "pets/dog/photo.heic": b"x",
    "pets/readme.txt": b"not an image",
    "__MACOSX/pets/cat/._1.png": b"x",
    "pets/cat/.hidden.png": b"x",
}


def test_folders_become_classes_and_what_is_broken_is_named(tmp_path: Path) -> None:
    made = take(zipped(MIXED))
    assert made.images == 3 and names() == ["mine"]
    store = build_store("uploaded:mine", 16, cache_dir=tmp_path / "cache", workers=0)
    assert store.classes == ("cat", "dog") and store.labels.tolist() == [0, 0, 1]
    found = look("uploaded:mine", 10)
    assert {(each.reason, each.names) for each in found.left_out} == {
        ("unreadable", ("pets/dog/broken.png",)),
        ("format", ("pets/dog/photo.heic",)),
    }
    assert store.found.left_out == found.left_out


def test_images_without_folders_are_one_class_called_as_the_set() -> None:
    take(zipped({"a.png": image(0), "b.webp": image(1, "WEBP")}), "holiday")
    assert look("uploaded:holiday", 10).class_names == ("holiday",)


ATTACKS = {
    **{
        name: (zipped({"a.png": image(0), name: image(1)}), "no image can have this name")
        for name in (
            "../evil.png",
            "cat/../../evil.png",
            "/etc/evil.png",
            "C:\\evil.png",
            "C:/evil.png",
            "cat\\evil.png",
            "cat//evil.png",
            "./evil.png",
            "evil.png\0.png",
            "evil\n.png",
            f"{'x' * 300}.png",
            f"{'x/' * 20}evil.png",
        )
    },
    "link": (zipped({"a.png": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "is a link or a device"),
    "pipe": (zipped({"a.png": b""}, mode=stat.S_IFIFO), "is a link or a device"),
    "bomb": (zipped({"a.bmp": bytes(2**26)}), "becomes more than 200 times as large"),
    "large": (zipped({"a.png": bytes(2**26 + 1)}, zipfile.ZIP_STORED), "is larger than 64 MB"),
    "lzma": (zipped({"a.png": image(0)}, zipfile.ZIP_LZMA), "in a way that no image is"),
    "file and folder": (
        zipped({"a.png": image(0), "a.png/b.png": image(1)}),
        "is in the archive twice, or is a file and a folder",
    ),
    "no images": (zipped({"a.txt": b"x"}), "There are no images in the archive"),
    "broken images alone": (zipped({"a.png": b"x"}), "There are no images in the archive"),
    "nothing": (b"", "This is no archive of a data set, or it is cut short"),
    "text": (b"PK\3\4" * 99, "This is no archive of a data set"),
    "half": (zipped(MIXED)[:-300], "This is no archive of a data set"),
    "one bit": (
        bytes(b ^ (k == 60) for k, b in enumerate(zipped({"a.png": image(0)}, 0))),
        "The archive is damaged",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_no_tool_makes_of_images_leaves_nothing(
    attack: str, runs: Path, tmp_path: Path
) -> None:
    data, sentence = ATTACKS[attack]
    with pytest.raises((ArchiveError, DataError), match=sentence):
        take(data)
    assert names() == []
    left = [each.name for each in runs.rglob("*") if each.name not in (".data", ".lock")]
    assert left == [] and {each.name for each in tmp_path.iterdir()} <= {"runs"}


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "x" * 81, "é"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="cannot be the name of a data set"):
        take(zipped(MIXED), name)
    with pytest.raises(DataError, match="cannot be the name of a data set"):
        folder_of(name)


def test_a_name_is_taken_once_and_free_again_after_it_is_deleted() -> None:
    take(zipped(MIXED))
    with pytest.raises(DataError, match="There is already a data set called mine"):
        take(zipped({"a.png": image(0)}))
    assert count("uploaded:mine") == 3
    uploaded.delete("mine")
    with pytest.raises(DataError, match=r"set 'mine'\. None has been uploaded yet"):
        count("uploaded:mine")
    assert take(zipped({"a.png": image(0)})).images == 1


def test_of_two_at_once_one_wins_and_the_other_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        inside.set()
        assert go_on.wait(60)

    data = zipped(MIXED)
    first = threading.Thread(target=lambda: uploaded.take(io.BytesIO(data), "mine", wait))
    first.start()
    try:
        assert inside.wait(60)
        with pytest.raises(DataError, match="Another data set is being uploaded"):
            take(data)
        assert names() == []  # never half
    finally:
        go_on.set()
        first.join()
    assert count("uploaded:mine") == 3


def test_what_a_killed_process_left_is_removed_by_the_next(runs: Path) -> None:
    left = runs / ".data" / ".mine.999999999-1.tmp"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"x")
    take(zipped(MIXED))
    assert sorted(os.listdir(runs / ".data")) == [".lock", "mine"]


def test_a_disk_without_room_is_refused_before_anything_is_unpacked(
    monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    monkeypatch.setattr(uploaded, "SPARE", 2**60)
    with pytest.raises(DiskFull, match="Free some space there and try again"):
        take(zipped(MIXED))
    assert os.listdir(runs / ".data") == [".lock"]


def test_the_command_line_imports_lists_and_deletes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pets.zip"
    file.write_bytes(zipped(MIXED))
    assert main(["data", "import", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 images in 2 classes (cat, dog); 2 left out.")
    assert "--data uploaded:pets" in said
    assert main(["data", "import", str(file)]) == 1
    assert "There is already a data set called pets" in capsys.readouterr().err
    assert main(["data", "list"]) == 0
    assert capsys.readouterr().out == "uploaded:pets  3 images\n"
    assert main(["data", "delete", "pets"]) == 0
    assert names() == []
