"""Every command and page on every odd run folder: a sentence of ours, nothing else is touched."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.review.view import VIEWS
from diffusion_core.cli.main import COMMANDS, main
from diffusion_core.errors import PREFIX
from diffusion_core.evaluation import evaluator, sliced
from diffusion_core.review.index import FILE as INDEX
from tests.faults.test_odd_runs import PAGES, Started
from tests.odd_runs import ODD, UNREADABLE, bound_by_permissions, write_odd_run
from tests.pages.app import open_page
from tests.tiny_runs import TINY, write_run

KINDS = {name: spoil for name, (spoil, _) in UNREADABLE.items()} | ODD
CLOSED = "without permission"
KINDS[CLOSED] = lambda run: run.chmod(0)
SOME = ("deep", CLOSED)  # of all of these, in `make test`
STATES = ("finished", "stopped", "queued")
CONFIG = TINY.replace(data="cars:64", batch_size=4, validation_count=16)
# Words of Python, pydantic, PyTorch and the rest that no message may have.
FOREIGN = re.compile(
    r"Traceback|Error\b|Errno|Exception|NoneType|PosixPath|<class|object at 0x|pydantic"
    r"|Input should|has no attribute|not subscriptable|invalid literal|must be str|keyword|nobody"
)

# Beside each page as it opens.
FURTHER = (
    "training.py more=Quality",
    "sampling.py mode=Batch",
    *(f"review.py view={view}" for view in list(VIEWS)[1:]),
)
# The words of each command; RUN stands for the run, OUT for a place of its own. Those that change
# a run that is whole enough are asked last.
WORDS = {
    "sample": [
        "sample --run RUN --n 1 --steps 1 --out OUT.png",
        "sample --run RUN --n 1 --steps 1 --out OUT/",
    ],
    "evaluate": ["evaluate --run RUN --n 16 --steps 1"],
    "tune": ["tune RUN --steps 1"],
    "export": [
        f"export RUN --format {f} --out OUT-{f}"
        for f in ("diffusers", "onnx", "csv", "parquet", "archive")
    ],
    "import": ["import RUN"],
    "settings": ["settings batch_size"],
    "report": ["report RUN --out OUT.html", "report RUN --out OUT.pdf --dry-run"],
    "runs": ["runs"],
    "command": ["command RUN", "command RUN --machines 2"],
    "completion": ["completion bash"],
    "queue": ["queue", "queue up RUN", "queue cancel RUN"],
    "sweep": ["sweep", "sweep swept --like RUN --vary batch_size=2,4 --dry-run"],
    "stop": ["stop RUN"],
    "pause": ["pause RUN"],
    "sample-now": ["sample-now RUN"],
    "checkpoint-now": ["checkpoint-now RUN"],
    "change": ["change RUN learning_rate=0.5", "change RUN steps=100", "change RUN data=digits"],
    "train": [
        "train --run OUT-like --like RUN --background",
        "train --run OUT-from --init-from RUN --background",
        "train --run RUN --background",
        "train --run RUN --resume --background",
        "train --run RUN --steps 41 --quiet",
        "train --run RUN --resume --quiet",
    ],
    "resume": ["resume RUN", "resume RUN --steps 100"],
    "note": ["note RUN text --step 40"],
    "tag": ["tag RUN good"],
    "star": ["star RUN --step 40"],
    "decide": ["decide RUN keep"],
    "remarks": ["remarks RUN", "remarks RUN --json"],
    "alerts": ["alerts"],
    "delete": ["delete RUN", "delete RUN --yes"],
    "restore": ["restore RUN"],
    "doctor": [],  # knows no runs
    "data": [],  # likewise
}
# What a command may change of a run though it fails: a trainer that has begun says so in the run.
TELLS = {
    "train --run RUN --resume --quiet": {
        "status.json",
        "train.log",
        "request.json",
        "history.jsonl",
    }
}


def test_every_command_is_tried() -> None:
    assert WORDS.keys() == COMMANDS.keys()


def contents(folder: Path) -> dict[str, object]:
    """What is in a folder, by path: kind, size, and the bytes of small files."""
    found: dict[str, object] = {}
    for path in [folder, *folder.rglob("*")]:
        seen = path.lstat()
        what: object = os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(seen.st_mode) and seen.st_size < 2**20:
            what = path.read_bytes()
        size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
        found[str(path.relative_to(folder))] = (seen.st_mode, size, what)
    return found


def changed(before: dict[str, object], after: dict[str, object]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.fixture(scope="module", autouse=True)
def images_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sliced, "DESCRIPTORS", 2**8)
        patch.setattr(evaluator, "load_inception", lambda *_: (None, "No FID."))
        yield


def try_all(kind: str, state: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Every command on a run of this kind; each finds it as it was made."""
    monkeypatch.setattr("subprocess.Popen", Started)
    monkeypatch.chdir(runs_dir.parent)
    temporary = runs_dir.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    whole = write_run(runs_dir, "whole", 40, config=CONFIG)
    before_whole = contents(whole)
    place = {"host": socket.gethostname(), "device": "cpu", "queued_at": 1.0}
    run, before = runs_dir / "odd", dict[str, object]()
    for command, lines in WORDS.items():
        for line in lines:
            if not before:
                write_odd_run(runs_dir, "odd", KINDS[kind], config=CONFIG, state=state, **place)
                before = contents(run)
            monkeypatch.setattr("sys.stdin", io.StringIO())
            words = line.replace("RUN", "odd").replace("OUT", str(runs_dir.parent / "out")).split()
            with bound_by_permissions():
                code = main(words)
            said = capsys.readouterr()
            assert code in (0, 1, 2), line
            assert not FOREIGN.search(said.out + said.err), (line, said)
            last = (said.err if code else said.out).strip().splitlines()
            assert last and (code == 0 or last[-1].endswith(".")), (line, said)
            assert contents(whole) == before_whole, line
            assert not list(temporary.glob(f"{PREFIX}*")), line
            if not run.exists():  # deleted
                assert (code, command) == (0, "delete")
            differs = changed(before, contents(run)) if run.exists() else {"all"}
            if state != "queued":  # where a command may start what waits
                only_read = command in (
                    *("runs", "sample", "export", "import", "settings", "report", "command"),
                    *("completion", "remarks"),
                )
                tells = command in ("export", "report") and not code
                noted = {"history.jsonl"} if tells else set()
                if code or only_read:
                    assert differs <= noted | TELLS.get(line, set()), (line, said, differs)
            if differs:
                shutil.rmtree(run, ignore_errors=True)
                before = {}
            for made in runs_dir.parent.glob("out*"):
                shutil.rmtree(made) if made.is_dir() else made.unlink()


@pytest.mark.parametrize("kind", SOME)
def test_the_commands_say_what_is_odd_and_touch_nothing(
    kind: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    try_all(kind, "stopped", runs_dir, monkeypatch, capsys)


@pytest.mark.long
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_says_what_is_odd_and_touches_nothing(
    kind: str, state: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    try_all(kind, state, runs_dir, monkeypatch, capsys)


# ---------------------------------------------------------------- the pages


@pytest.mark.long
@pytest.mark.parametrize("page", [*PAGES, *FURTHER])
@pytest.mark.parametrize("kind", KINDS)
def test_every_page_opens_every_odd_run_by_name(kind: str, page: str, runs_dir: Path) -> None:
    file, _, more = page.partition(" ")
    write_run(runs_dir, "whole", 40, config=CONFIG)
    run = write_odd_run(runs_dir, "odd", KINDS[kind], config=CONFIG, state="stopped")
    before = contents(runs_dir)
    chosen: dict[str, dict[str, object]] = {
        "unet.py": {"network": "run odd"},
        "review.py": {"runs": ["odd", "whole"]},
    }
    settings = dict(chosen.get(file, {"run": "odd"}))
    if more:
        name, _, value = more.partition("=")
        settings[name] = value
    with bound_by_permissions():
        shown = open_page(file, **settings)
    assert not shown.exception
    for element in (*shown.error, *shown.warning, *shown.info, *shown.caption):
        assert not FOREIGN.search(element.value), element.value
        assert str(runs_dir) not in element.value
    differs = changed(before, contents(runs_dir))
    cores = f".{socket.gethostname()}-cores-0.lock"  # held while a page computes
    assert differs <= {INDEX, cores} and run.exists()
