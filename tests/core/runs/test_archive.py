"""A run as one file: nothing is lost on the way, and no archive does harm."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import sqlite3
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from diffusion_core.cli.main import main
from diffusion_core.files import DiskFull
from diffusion_core.media.images import png
from diffusion_core.runs import archive, archive_import, changes, history, remarks, votes
from diffusion_core.runs.archive import export_archive, pack, plan_archive
from diffusion_core.runs.archive_import import import_archive
from diffusion_core.runs.checkpoint import CheckpointError, load_weights, save_state
from diffusion_core.runs.jobs import JobError, can_go_on
from diffusion_core.runs.metrics import MetricsWriter, read_all
from diffusion_core.runs.remarks import Kind
from diffusion_core.runs.run import Run, list_runs, load_run
from diffusion_core.zips import ArchiveError
from tests.tiny_runs import set_running, write_checkpoint, write_run

IMAGE = png(np.zeros((2, 4, 3), np.uint8))
STATE = {"step": 8, "model": {}, "optimizer": {}, "data_fingerprint": "x"}


def full_run(runs_dir: Path) -> Run:
    """One with a file of each kind."""
    path = write_run(runs_dir, "cars", 4, 8, state="stopped", pid=4321, host="ann-laptop", step=8)
    writer = MetricsWriter(path / "metrics.sqlite")
    writer.add((step, "loss", 1 / step, 1e9 + step) for step in range(1, 9))
    writer.add([(4, "validation_loss", 0.25, 1e9), (8, "validation_loss", 0.5, 1e9)])
    writer.close()
    changes.add_change(path, 5, {"learning_rate": 0.5})
    remarks.add(path, Kind.NOTE, "Wheels are round.", by="ann@lab.org")
    votes.cast([path], "wheels", "seed 1", ["cars", "b"], "cars", by="ann@lab.org")
    history.record(path, history.Event.STARTED, "ann@lab.org")
    save_state(path, 8, STATE)
    for name in ("samples/step-00000004.png", "quality/step-00000008-0123456789ab.png"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(IMAGE)
    (path / "quality/step-00000008-0123456789ab.json").write_text('{"version": 1}')
    (path / "timesteps").mkdir()
    (path / "timesteps/step-00000008-0123456789ab.json").write_text('{"steps": 1}')
    for name in ("train.log", ".reserve", "request.json", "samples/.step.tmp", "samples/me.png"):
        (path / name).write_text("ann-laptop")
    return load_run(path)


def files_of(run: Path) -> dict[str, bytes]:
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
    }


def packed(run: Run, **choices: Any) -> bytes:
    return b"".join(pack(plan_archive(run, **choices), []))


# ---------------------------------------------------------------- there and back


def test_a_run_comes_back_as_it_was_without_its_process(tmp_path: Path, runs_dir: Path) -> None:
    run = full_run(runs_dir)
    before = files_of(run.path)
    size = plan_archive(run, "all", True).size
    assert export_archive(run, tmp_path / "cars.zip", "all", True, by="bob") == []
    assert (tmp_path / "cars.zip").stat().st_size <= size

    again = import_archive(tmp_path / "cars.zip", tmp_path / "elsewhere", by="eve")
    after = files_of(again.path)
    left = {"train.log", ".reserve", "request.json", "samples/.step.tmp", "samples/me.png"}
    assert after.keys() == before.keys() - left
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"status.json", "history.jsonl", "metrics.sqlite"}
    assert read_all(again.path / "metrics.sqlite") == read_all(run.path / "metrics.sqlite")
    assert after["history.jsonl"].startswith(before["history.jsonl"])
    assert [(each.event, each.by) for each in history.read_history(again.path).entries] == [
        ("started", "ann@lab.org"),
        ("imported", "eve"),
    ]
    assert history.read_history(run.path).entries[-1].format == "archive"
    assert again.status == run.status.replace(pid=None, host="", arguments=())
    assert again.state == "stopped"
    assert can_go_on(again)
    assert again.snapshot().config == run.snapshot().config
    assert b"ann-laptop" not in b"".join(after.values())
    assert stat.S_IMODE(again.checkpoint(8).path.stat().st_mode) & 0o111 == 0


def test_the_same_files_give_the_same_bytes(tmp_path: Path, runs_dir: Path) -> None:
    run = full_run(runs_dir)
    first = packed(run)
    for file in run.path.rglob("*"):
        os.utime(file, (1, 1))
    assert packed(run) == first
    shutil.copytree(run.path, tmp_path / "copy" / "cars")
    assert packed(load_run(tmp_path / "copy" / "cars")) == first


def test_the_weights_that_are_chosen_are_in_it(runs_dir: Path) -> None:
    run = full_run(runs_dir)
    (run.path / "weights/step-00000012.safetensors").write_bytes(b"damaged")

    def steps(**choices: Any) -> list[int]:
        names = [name for name, _ in plan_archive(run, **choices).files]
        assert ("state/step-00000008.pt" in names) == choices.get("with_state", False)
        return [int(name[13:21]) for name in names if name.startswith("weights/")]

    assert steps() == [4]  # the lowest validation loss
    assert steps(weights="latest") == [8]
    assert steps(weights="all") == [4, 8]
    assert steps(weights="none") == []
    assert steps(weights=[8, 4, 8]) == [4, 8]
    assert steps(weights="best", with_state=True) == [4, 8]  # and the one to continue from
    (run.path / "metrics.sqlite").unlink()
    assert steps() == [8]


def test_weights_that_a_run_starts_from_go_along_until_it_has_its_own(runs_dir: Path) -> None:
    run = load_run(write_run(runs_dir, "cars", state="stopped"))
    other = write_run(runs_dir, "other", 4) / "weights/step-00000004.safetensors"
    origin = other.rename(run.path / "origin.safetensors")
    again = import_archive(io.BytesIO(packed(run)), runs_dir, "again")
    assert (again.path / "origin.safetensors").read_bytes() == origin.read_bytes()
    write_checkpoint(run.path, 4)
    assert "origin.safetensors" not in dict(plan_archive(run).files)


def test_a_run_that_trains_is_packed_as_it_is_at_one_moment(runs_dir: Path) -> None:
    """The rows of its last commit lie in the log beside the file; the run is at work."""
    run = full_run(runs_dir)
    set_running(run.path)
    writer = MetricsWriter(run.path / "metrics.sqlite", keep_up_to_step=8)
    writer.add([(9, "loss", 0.125, 1e9)])
    writer.commit()
    writer.add([(10, "loss", 0.0625, 1e9)])  # not yet
    parts = pack(plan_archive(run), [])
    data = next(parts)
    writer.commit()
    again = import_archive(io.BytesIO(data + b"".join(parts)), runs_dir, "again")
    assert [row for row in read_all(again.path / "metrics.sqlite") if row[0] > 8] == [
        (9, "loss", 0.125, 1e9),
        *([(10, "loss", 0.0625, 1e9)] if b"metrics" not in data else []),
    ]
    writer.close()
    assert (run.state, again.state, again.status.pid) == ("running", "stopped", None)
    assert not list(again.path.glob("metrics.sqlite-*"))


def test_what_cannot_be_used_is_left_out_and_named(tmp_path: Path, runs_dir: Path) -> None:
    run = full_run(runs_dir)
    (run.path / "metrics.sqlite").write_bytes(b"no database at all" * 300)
    (run.path / "samples/step-00000004.png").write_bytes(IMAGE[:40])
    os.mkfifo(run.path / "samples/step-00000008.png")
    left_out = export_archive(run, tmp_path / "cars.zip", "latest")
    assert [each.partition(" ")[0] for each in left_out] == [
        "metrics.sqlite",
        "step-00000004.png",
        f"{run.path}/samples/step-00000008.png:",
    ]
    again = import_archive(tmp_path / "cars.zip", runs_dir, "again")
    assert (again.samples(), again.last_values(), again.weights()[0][0]) == ([], {}, 8)


def test_what_cannot_be_packed_gets_a_sentence(tmp_path: Path, runs_dir: Path) -> None:
    run = full_run(runs_dir)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 5"):
        plan_archive(run, [5])
    plan = plan_archive(run, "latest")
    run.checkpoint(8).path.unlink()
    with pytest.raises(ArchiveError, match=r"cars has changed meanwhile: .*step-00000008"):
        archive.write_archive(plan, tmp_path / "cars.zip")
    assert not (tmp_path / "cars.zip").exists()
    with pytest.raises(ArchiveError, match="no state to continue from; leave it out"):
        plan_archive(run, with_state=True)
    (run.path / "config.json").unlink()
    with pytest.raises(ArchiveError, match=r"config\.json is missing"):
        plan_archive(run)


# ---------------------------------------------------------------- what others may send


class Sent(NamedTuple):
    """A file of an archive, with what the zip file says of it."""

    data: bytes
    method: int = zipfile.ZIP_STORED
    attributes: int = 0o100644 << 16
    flags: int = 0


Files = dict[str, Sent]


def manifest_of(held: Files, /, **fields: Any) -> bytes:
    members = [
        {"name": name, "size": len(sent.data), "sha256": hashlib.sha256(sent.data).hexdigest()}
        for name, sent in held.items()
    ]
    values = {"kind": "diffusion-lab run", "version": 1, "name": "cars", "files": members}
    return json.dumps(values | fields).encode()


def zip_of(files: Files, manifest: bytes | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        entries = []
        for name, sent in files.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # as it is: ZipInfo would end it at a null byte
            entry.compress_type, entry.external_attr = sent.method, sent.attributes
            made.writestr(entry, sent.data)
            entries.append((entry, sent.flags))
        if manifest is not None:
            made.writestr("manifest.json", manifest)
        for entry, flags in entries:  # in the list at the end, which is written now
            entry.flag_bits |= flags
    return out.getvalue()


@functools.cache
def whole_archive() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return packed(full_run(Path(folder)), weights="latest", with_state=True)


def whole() -> Files:
    with zipfile.ZipFile(io.BytesIO(whole_archive())) as read:
        files = {name: Sent(read.read(name)) for name in read.namelist()}
    del files["manifest.json"]
    return files


Attack = Callable[[], bytes]


def with_file(name: str, data: bytes | Callable[[bytes], bytes] = b"x", **entry: Any) -> Attack:
    """One more file, or another one, in an archive whose manifest is right."""

    def attack() -> bytes:
        files = whole()
        before = files[name].data if name in files else b""
        files[name] = Sent(data(before) if callable(data) else data, **entry)
        return zip_of(files, manifest_of(files))

    return attack


def with_manifest(**fields: Any) -> Attack:
    return lambda: zip_of(whole(), manifest_of(whole(), **fields))


def with_manifest_text(text: bytes | None) -> Attack:
    return lambda: zip_of(whole(), text)


def without(name: str) -> Attack:
    def attack() -> bytes:
        files = whole()
        del files[name]
        return zip_of(files, manifest_of(files))

    return attack


def spoiled(change: Callable[[bytes], bytes]) -> Attack:
    return lambda: change(whole_archive())


def database(*statements: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        with sqlite3.connect(":memory:") as connection:
            connection.deserialize(data)
            for statement in statements:
                connection.execute(statement)
            connection.commit()
            return connection.serialize()

    return change


def state(value: object, method: int = zipfile.ZIP_STORED, **choices: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **choices)
    if method == zipfile.ZIP_STORED:
        return file.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(file) as read, zipfile.ZipFile(out, "w", method) as made:
        for name in read.namelist():
            made.writestr(name, read.read(name))
    return out.getvalue()


class Payload:
    """What a pickle would do when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def list_of_gigabytes(data: bytes) -> bytes:
    """The end of a zip file says that the list of its files is large."""
    return data[:-10] + struct.pack("<I", 2**31) + data[-6:]


def list_of_terabytes(data: bytes) -> bytes:
    size, place = 2**42, len(data) - 22
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, size, 0)
    return data[:-22] + record + struct.pack("<4sIQI", b"PK\6\7", 0, place, 1) + data[-22:]


def larger_than_it_is(data: bytes) -> bytes:
    """The list says that the weights lie on all that comes after them too."""
    name = b"weights/step-00000008.safetensors"
    place = data.rindex(name) - 46
    sizes = struct.pack("<II", len(data), len(data))
    return data[: place + 20] + sizes + data[place + 28 :]


def other_numbers() -> bytes:
    files = whole()
    listed = json.loads(manifest_of(files))
    listed["files"][0]["size"] += 1
    return zip_of(files, json.dumps(listed).encode())


def other_bytes() -> bytes:
    files = whole()
    manifest = manifest_of(files)
    files["remarks.jsonl"] = Sent(files["remarks.jsonl"].data.replace(b"round", b"flat!"))
    return zip_of(files, manifest)


LINK = {"attributes": (stat.S_IFLNK | 0o777) << 16}
WEIGHTS = "weights/step-00000008.safetensors"
STATE_FILE = "state/step-00000008.pt"
ATTACKS: dict[str, tuple[Attack, str]] = {
    # Names
    **{
        f"name {name!r}"[:60]: (with_file(name), "The archive has a file '")
        for name in (
            "../evil.png",
            "samples/../../evil.png",
            "samples/../config.json",
            "./config.json",
            "/etc/cron.d/evil",
            "C:\\evil.png",
            "C:/evil.png",
            "samples\\step-00000004.png",
            "\\\\host\\share\\evil.png",
            "config.json\0.png",
            "samples/step-00000004.png\0",
            "samples/step-0000000٤.png",
            "ѕamples/step-00000004.png",
            "samples/step-00000004.\u202epng",
            "config.json\n",
            "CONFIG.JSON",
            "Config.json",
            "samples/step-4.png",
            "samples/step-000000004.png",
            "samples/",
            "samples/step-00000012.png/",
            "samples/step-00000012.svg",
            "weights/step-00000012.pt",
            "train.log",
            "request.json",
            ".reserve",
            ".cars.run.lock",
            "metrics.sqlite-wal",
            "drawings/a/order.json",
            "nul",
            "x" * 60_000,
            "",
        )
    },
    # What an entry is
    "link": (with_file("samples/step-00000012.png", b"/etc/passwd", **LINK), "is a link or a dev"),
    "link to a folder": (with_file("weights/step-00000012.safetensors", b"/", **LINK), "is a link"),
    "device": (
        with_file("samples/step-00000012.png", b"", attributes=stat.S_IFCHR << 16),
        "is a link or a device",
    ),
    "pipe": (with_file("votes.jsonl", b"", attributes=stat.S_IFIFO << 16), "is a link or a device"),
    "folder": (with_file("votes.jsonl", b"", attributes=stat.S_IFDIR << 16), "is a link or a dev"),
    "encrypted": (with_file("votes.jsonl", flags=1), "votes.jsonl is encrypted"),
    "strongly encrypted": (with_file("votes.jsonl", flags=0x40), "The archive is damaged"),
    "patched": (with_file("votes.jsonl", flags=0x20), "The archive is damaged"),
    "bzip2": (with_file("votes.jsonl", method=zipfile.ZIP_BZIP2), "is compressed in the archive"),
    "lzma": (with_file("votes.jsonl", method=zipfile.ZIP_LZMA), "is compressed in the archive"),
    "compressed weights": (
        with_file(WEIGHTS, lambda data: data, method=zipfile.ZIP_DEFLATED),
        "is compressed in the archive in a way",
    ),
    # Sizes
    "bomb": (
        with_file("votes.jsonl", bytes(2**25), method=zipfile.ZIP_DEFLATED),
        "votes.jsonl becomes more than 200 times as large",
    ),
    "large JSON": (
        with_file("changes.json", lambda _: os.urandom(2**22 + 1)),
        "changes.json is larger than 4 MB",
    ),
    "large list": (spoiled(list_of_gigabytes), "The archive has too many files"),
    "larger list": (spoiled(list_of_terabytes), "The archive has too many files"),
    "overlap": (spoiled(larger_than_it_is), "The archive holds the same bytes several times"),
    # The manifest
    "no manifest": (with_manifest_text(None), "it has no manifest.json"),
    "manifest of something else": (with_manifest_text(b"{}"), "manifest.json: name is missing"),
    "manifest without JSON": (with_manifest_text(b"\xff{"), "manifest.json is not readable JSON."),
    "deep manifest": (with_manifest_text(b"[" * 10**5), "manifest.json is not readable JSON."),
    "large manifest": (with_manifest_text(b" " * (2**22 + 1)), "manifest.json is larger than 4 MB"),
    "another kind": (with_manifest(kind="recipe"), "manifest.json: kind is 'recipe'"),
    "a newer version": (with_manifest(version=2), "A newer version of Diffusion Lab has written"),
    "no version": (with_manifest(version="1"), "manifest.json: version is '1'"),
    "too many": (with_manifest(files=[{}] * 20_001), "manifest.json: files"),
    "no file": (with_manifest(files=[]), "manifest.json lists other files than the archive has"),
    "another size": (other_numbers, "manifest.json lists other files than the archive has"),
    "another hash": (other_bytes, "remarks.jsonl is not what manifest.json says"),
    "name of a folder elsewhere": (with_manifest(name="../cars"), "'../cars' cannot be a run's"),
    "name of a device": (with_manifest(name="/dev/shm/x"), "'/dev/shm/x' cannot be a run's name"),
    "hidden name": (with_manifest(name=".trash"), "'.trash' cannot be a run's name"),
    "no name": (with_manifest(name=""), "'' cannot be a run's name"),
    # The zip file
    "nothing": (lambda: b"", "This is no archive of a run, or it is cut short"),
    "text": (lambda: b"PK\3\4" * 99, "This is no archive of a run, or it is cut short"),
    "cut short": (spoiled(lambda data: data[:-1]), "This is no archive of a run, or it is cut sh"),
    "cut in half": (spoiled(lambda data: data[: len(data) // 2]), "This is no archive of a run"),
    "something after it": (spoiled(lambda data: data + b"x"), "This is no archive of a run"),
    "its middle is missing": (
        spoiled(lambda data: data[:1000] + data[2000:]),
        "This is no archive of a run, or it is cut short",
    ),
    "one bit": (
        spoiled(lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:]),
        "The archive is damaged or cut short",
    ),
    # What is in the files
    "no settings": (without("config.json"), "config.json is missing"),
    "odd settings": (
        with_file(
            "config.json", lambda data: data.replace(b'"batch_size": 32', b'"batch_size": 0')
        ),
        "config.json: batch_size is 0",
    ),
    "settings without JSON": (with_file("config.json"), "config.json is not readable JSON."),
    "odd change": (
        with_file(
            "changes.json", b'{"changes": [{"step": 1, "time": 1, "settings": {"seed": 1}}]}'
        ),
        "seed cannot change in a run",
    ),
    "status without JSON": (with_file("status.json"), "status.json is not readable JSON."),
    "quality without JSON": (
        with_file("quality/step-00000008-0123456789ab.json"),
        "step-00000008-0123456789ab.json is not readable JSON.",
    ),
    "text as image": (with_file("samples/step-00000004.png"), "is not a PNG that can be read"),
    "script as image": (
        with_file("samples/step-00000004.png", b"%!PS-Adobe-3.0 EPSF-3.0\nquit"),
        "is not a PNG that can be read",
    ),
    "half an image": (with_file("samples/step-00000004.png", IMAGE[:50]), "is not a PNG that can"),
    "text as weights": (with_file(WEIGHTS), f"{WEIGHTS[8:]} is damaged or cut short"),
    "half of the weights": (
        with_file(WEIGHTS, lambda data: data[:-8]),
        f"{WEIGHTS[8:]} is damaged or cut short",
    ),
    "weights of another step": (
        with_file("weights/step-00000012.safetensors", lambda _: whole()[WEIGHTS].data),
        "step-00000012.safetensors holds the weights of step 8",
    ),
    "weights of another network": (
        with_file(WEIGHTS, lambda data: data.replace(b'blocks\\": 1', b'blocks\\": 2')),
        "does not fit its own settings",
    ),
    "text as metrics": (with_file("metrics.sqlite", b"x" * 5000), "metrics.sqlite is damaged"),
    "half of the metrics": (
        with_file("metrics.sqlite", lambda data: data[:4096]),
        "metrics.sqlite is damaged",
    ),
    "metrics with a trigger": (
        with_file(
            "metrics.sqlite",
            database("CREATE TRIGGER t AFTER INSERT ON scalars BEGIN DELETE FROM scalars; END"),
        ),
        "metrics.sqlite has other tables than metrics do",
    ),
    "metrics as a view": (
        with_file(
            "metrics.sqlite",
            database(
                "ALTER TABLE scalars RENAME TO hidden",
                "CREATE VIEW scalars AS SELECT step, name, randomblob(1e9) value, 1 wall_time "
                "FROM hidden",
            ),
        ),
        "metrics.sqlite has other tables than metrics do",
    ),
    "metrics with an index": (
        with_file("metrics.sqlite", database("CREATE INDEX i ON scalars (abs(value))")),
        "metrics.sqlite has other tables than metrics do",
    ),
    "metrics with another table": (
        with_file("metrics.sqlite", database("CREATE TABLE other (x)")),
        "metrics.sqlite has other tables than metrics do",
    ),
    **{
        f"metrics with {row}": (
            with_file("metrics.sqlite", database(f"INSERT INTO scalars VALUES ({row})")),
            "metrics.sqlite is damaged or has values that no run writes",
        )
        for row in (
            "-1, 'loss', 1, 1",
            "9, 'loss', 1e999, 1",
            "9, 'loss', 'much', 1",
            "9, 'loss', 1, -1",
            "9, x'ff', 1, 1",
            "9, hex(zeroblob(500)), 1, 1",
        )
    },
    "metrics with many curves": (
        with_file(
            "metrics.sqlite",
            database(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
                "INSERT INTO scalars SELECT 1, 'curve ' || i, 1, 1 FROM n"
            ),
        ),
        "metrics.sqlite is damaged or has values that no run writes",
    ),
    "program as state": (
        with_file(STATE_FILE, lambda _: state({**STATE, "model": Payload()})),
        f"{STATE_FILE[6:]} cannot be read: it is damaged or cut short",
    ),
    "pickle as state": (
        with_file(STATE_FILE, lambda _: pickle.dumps(Payload())),
        f"{STATE_FILE[6:]} is damaged or cut short",
    ),
    "state of an older form": (
        with_file(STATE_FILE, lambda _: state(STATE, _use_new_zipfile_serialization=False)),
        f"{STATE_FILE[6:]} is damaged or cut short",
    ),
    "bomb as state": (
        with_file(
            STATE_FILE,
            lambda _: state(STATE | {"model": {"x": torch.zeros(2**20)}}, zipfile.ZIP_DEFLATED),
        ),
        f"{STATE_FILE[6:]} is damaged or cut short",
    ),
    "state of something else": (
        with_file(STATE_FILE, lambda _: state({"a": 1})),
        "does not hold the state of a training",
    ),
}


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def untouched(tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing has become of a run that was there, nor of anything else."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_run(), runs_dir / "there")
    before = everything(tmp_path)
    yield
    assert everything(tmp_path) - {"runs/.import.lock"} == before


@functools.cache
def whole_run() -> Path:
    import tempfile

    return write_run(Path(tempfile.mkdtemp()), "there", 40)


def test_the_archive_that_is_changed_in_these_tests_can_be_imported(runs_dir: Path) -> None:
    files = whole()
    run = import_archive(io.BytesIO(zip_of(files, manifest_of(files))), runs_dir)
    assert (run.name, run.state, run.checkpoint(8).step) == ("cars", "stopped", 8)
    assert load_weights(run.checkpoint(8)).keys()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_archive_does_harm(attack: str, runs_dir: Path, untouched: None) -> None:
    make, sentence = ATTACKS[attack]
    with pytest.raises((ArchiveError, JobError)) as caught:
        import_archive(io.BytesIO(make()), runs_dir)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith((".", "line"))
    assert len(str(caught.value)) < 600


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(runs_dir: Path, untouched: None) -> None:
    out = io.BytesIO(whole_archive())
    with zipfile.ZipFile(out, "a") as more:
        more.writestr("config.json", "{}")
    with pytest.raises(ArchiveError, match=r"config\.json is in the archive twice"):
        import_archive(out, runs_dir)


def test_a_name_that_is_taken_is_refused_and_another_can_be_chosen(
    tmp_path: Path, runs_dir: Path, capsys
) -> None:
    file = tmp_path / "cars.zip"
    file.write_bytes(whole_archive())
    words = ["import", str(file), "--runs-dir", str(runs_dir)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said == (
        f"cars is imported as {runs_dir / 'cars'}. Checkpoints: 8; it can be resumed.\n"
    )
    before = files_of(runs_dir / "cars")
    assert main(words) == 1
    assert capsys.readouterr().err == ("There is already a run called cars; choose another name.\n")
    assert files_of(runs_dir / "cars") == before
    assert main([*words, "--name", "../x"]) == 1
    assert main([*words, "--name", "again"]) == 0
    assert sorted(run.name for run in list_runs(runs_dir)) == ["again", "cars"]
    inside = ["import", str(file), "--runs-dir", str(runs_dir / "cars")]
    assert main(inside) == 1
    assert "is a run; new runs need a folder of their own" in capsys.readouterr().err
    assert main(["import", str(tmp_path), "--runs-dir", str(runs_dir)]) == 1
    os.mkfifo(tmp_path / "pipe")
    assert main(["import", str(tmp_path / "pipe"), "--runs-dir", str(runs_dir)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: Is a directory.",
        f"{tmp_path / 'pipe'}: Not a regular file.",
    ]


def test_the_command_says_first_how_large_the_archive_will_be(
    tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    run = full_run(runs_dir)
    words = ["export", "cars", "--format", "archive"]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out == (
        "cars as an archive: 12 files, weights of step 4, at most 0.2 MB.\n"
    )
    assert not list(tmp_path.glob("*.zip"))
    (run.path / "samples/step-00000004.png").write_bytes(b"")
    assert main([*words, "--weights", "4", "8"]) == 0
    said = capsys.readouterr()
    assert said.out == "cars as an archive of 0.1 MB: cars.zip\n"
    assert said.err == "Left out: step-00000004.png is not a PNG that can be read.\n"
    for more, sentence in (
        (["--weights", "good"], "--weights takes best, latest, all or none, or steps."),
        (["--step", "4"], "--step goes with --format diffusers and onnx; use --weights 4."),
        (["--out", "."], ". is a folder; give --out the name of a file."),
    ):
        assert main([*words, *more]) == 2
        assert capsys.readouterr().err == f"{sentence}\n"
    assert main(["export", "cars", "--format", "csv", "--dry-run"]) == 2


def test_only_one_archive_is_imported_at_a_time_and_leftovers_are_removed(
    runs_dir: Path,
) -> None:
    left = runs_dir / ".cars.2147483647-1.tmp"  # of a process that was killed
    left.mkdir()
    (left / "config.json").touch()
    with archive_import._alone(runs_dir), pytest.raises(JobError, match="Another archive is being"):
        import_archive(io.BytesIO(whole_archive()), runs_dir)
    assert left.exists()
    import_archive(io.BytesIO(whole_archive()), runs_dir)
    assert [path.name for path in sorted(runs_dir.iterdir())] == [".import.lock", "cars"]


def test_a_full_disk_leaves_nothing(
    runs_dir: Path, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(runs_dir)._replace(free=2**20)
        patch.setattr(archive_import.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DiskFull, match=r"has 1 MiB free\. Free some space there and import it"):
            import_archive(io.BytesIO(whole_archive()), runs_dir)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_import, "_check", full)
    with pytest.raises(DiskFull, match="The disk is full: cars could not be written"):
        import_archive(io.BytesIO(whole_archive()), runs_dir)


def import_mutated(data: bytes, runs_dir: Path) -> None:
    """An archive is refused with a sentence, or the run is the one that it was."""
    try:
        run = import_archive(io.BytesIO(data), runs_dir, "cars")
    except (ArchiveError, JobError):
        assert [path.name for path in runs_dir.iterdir()] in ([], [".import.lock"])
        return
    after, before = files_of(run.path), {name: sent.data for name, sent in whole().items()}
    after["history.jsonl"] = after["history.jsonl"][: len(before["history.jsonl"])]
    assert after == before
    shutil.rmtree(run.path)


@some.composite
def mutated(draw: some.DrawFn) -> bytes:
    """The archive with bytes changed, left out or repeated, most of them in its list of files."""
    data = bytearray(whole_archive())
    (listed,) = struct.unpack("<I", data[-6:-2])
    for _ in range(draw(some.integers(1, 4))):
        first = draw(some.sampled_from([0, listed, len(data) - 22]))
        at = draw(some.integers(min(first, len(data) - 1), len(data) - 1))
        kind = draw(some.sampled_from(["change", "cut", "repeat", "end"]))
        if kind == "change":
            data[at] ^= draw(some.integers(1, 255))
        elif kind == "cut":
            del data[at : at + draw(some.integers(1, 60))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(some.integers(1, 60))]
        elif at > 100:
            del data[at:]
    return bytes(data)


@settings(max_examples=60)
@given(data=mutated())
def test_a_mutated_archive_is_refused_or_is_the_same_run(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import_mutated(data, tmp_path_factory.mktemp("runs"))


@pytest.mark.long
@settings(max_examples=5000)
@given(data=mutated())
def test_many_mutated_archives(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    import_mutated(data, tmp_path_factory.mktemp("runs"))
