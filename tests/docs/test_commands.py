"""Every command in the documentation runs as written, from the root of the repository."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.runs import jobs
from diffusion_core.runs.run import ACTIVE, list_runs

pytestmark = pytest.mark.usefixtures("quick_python")

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
        *ROOT.glob("checkpoints/demo-*/README.md"),
    )
)
LONG = (
    "docs/many-machines.md",
    "docs/sampling.md",
    "docs/training.md",
    *(
        f"checkpoints/demo-{name}/README.md"
        for name in ("cars", "cars-distilled", "tiny", "tiny-distilled")
    ),
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What is not run as written: in a command that takes too long, or needs what is not here, the first
# text is replaced by the second.
SMALL = (
    "--set steps=2 image_size=16 batch_size=16 validation_count=16 num_workers=0 sample_count=1 "
    "sample_steps=1 network_args.widths="
)
SUBSTITUTIONS = {
    "--preset small": f"--preset small {SMALL}[8,8,8,8]",  # an hour and a half
    "--preset lecture": f"--preset lecture {SMALL}[8,8,8,8,8]",  # hours
    "--data cars": "--data cars:64",  # 20,000 images
    "--preset tiny": f"--preset tiny {SMALL}[8,8,8]",  # half an hour
    "--steps 10000": "--steps 2",  # as above
    "--steps 5000": "--steps 2",  # an hour
    "--steps 6000": "--steps 2",  # as above
    "--steps 4000": "--steps 2",  # as above
    "--steps 2000": "--steps 2",  # half an hour
    "--steps 3500": "--steps 2",  # an hour
    "--steps 2400": "--steps 3",  # as above
    "--steps 3400": "--steps 2 --set validation_count=16",  # an hour and a half
    "--distil demo-cars-second": "--distil demo-cars",  # not in the repository
    "--steps 3000": "--steps 2 --set validation_count=16",  # 20 minutes
    "--run my-cars-fast --steps 1 2": "--run my-cars-fast --n 16 --steps 1",  # minutes
    "tune my-cars --sampler dpmpp_2m --steps 5 10": "tune my-cars --steps 1",  # minutes
    "tune checkpoints/demo-cars --sampler dpmpp_2m --steps 5 10 20": "tune my-cars --steps 1",
    "--n 2048": "--n 16",  # minutes
    "--n 512": "--n 16",  # minutes
    "--step 4000": "--step 2",  # of a run that has 2 here
    "--like my-cars --background": "--like my-cars --set steps=8000 --background",  # has 2 here
    "sweep lr --like my-cars": "sweep lr --like my-cars --set steps=8000",  # has 2 here
    "python -m benchmarks.training": "python -m benchmarks.training --help",  # an hour
    "python -m benchmarks.recipes": "python -m benchmarks.recipes --help",  # hours
    "python -m benchmarks.layers": "python -m benchmarks.layers --help",  # a minute
    "python -m benchmarks.sampling": "python -m benchmarks.sampling --help",  # half an hour
    "python -m benchmarks.big_store": "python -m benchmarks.big_store --help",  # minutes
    "python -m benchmarks.together": "python -m benchmarks.together --help",  # minutes
    "python -m benchmarks.pages": "python -m benchmarks.pages --help",  # minutes, in a browser
    "python -m benchmarks.watchers": "python -m benchmarks.watchers --help",  # minutes
    "python -m benchmarks.crowd": "python -m benchmarks.crowd --help",  # minutes
    "python -m benchmarks.hand checkpoints/RUN": "python -m benchmarks.hand --help",
    "python -m benchmarks.engine checkpoints/RUN": "python -m benchmarks.engine --help",
    "tensorboard --logdir": "tensorboard --inspect --logdir",  # serves until it is stopped
    "python -m docs.take_screenshots": "python -m docs.take_screenshots --help",  # needs a server
}
# What is not run at all, and why.
NOT_RUN = {
    "make app": "installs and serves; tests/browser starts the same server",
    "make test": "runs this test",
    "make test-long": "minutes; .ci/run runs it",
    "make test-avx2": "minutes; .ci/run runs it",
    "make test-outside": "minutes; .ci/run runs it",
    "make gpu": "needs a GPU; tests/benchmarks runs its parts",
    "make lint": "a minute; .ci/run runs it",
    "pip install -c constraints.txt -e .": "installs; `make app` does the same",
    "pip install -c constraints.txt -r requirements-onnx.txt": "installs; `make env` does the same",
    "pip install -c constraints.txt -r requirements-images.txt": "as above",
    "pip install torch-fidelity": "installs, also a package called `tests`",
    "diffusion-lab doctor": "computes with large networks; tests/core/cli runs its parts",
    "diffusion-lab doctor --json": "as above",
    "streamlit run streamlit_app.py --server.address localhost": (
        "serves; tests/browser/server.py starts it"
    ),
    "DIFFUSION_LAB_DEMO=1 streamlit run streamlit_app.py --server.address 0.0.0.0": (
        "serves; tests/pages/services/test_demo.py shows what a visitor may"
    ),
    "DIFFUSION_LAB_ROLE=viewer streamlit run streamlit_app.py --server.address 0.0.0.0": (
        "serves; tests/pages show what a viewer sees"
    ),
}
DOWNLOADED = "cifar10"  # commands with this word are not run either: the images are not here
LANGUAGES = {"bash", "python", "text"}  # text is not run
TRAINS = "--preset small --data cars --run checkpoints/my-cars"


def blocks(document: str) -> list[tuple[str, str]]:
    """(language, text) of each code block."""
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """The commands of a block, continued lines joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.partition(" #")[0].strip())]


def all_commands() -> list[str]:
    return [
        command
        for document in DOCUMENTS
        for language, text in blocks(document)
        if language == "bash"
        for command in commands(text)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that most documents start from."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DIFFUSION_LAB_CACHE_DIR", str(cache))
        patched.setenv("DIFFUSION_LAB_DEVICE", "cpu")
        patched.chdir(folder)
        run_command(f"diffusion-lab train {TRAINS}")
    return folder / "checkpoints" / "my-cars"


@pytest.fixture
def repository(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the repository with the demo run, and a few images where a document wants some."""
    folder = tmp_path / "repository"
    (folder / "checkpoints").mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name != "checkpoints" and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    for demo in ROOT.glob("checkpoints/demo-*"):
        shutil.copytree(demo, folder / "checkpoints" / demo.name)
    for part, kind in product(("train", "test"), ("Audi A5", "Fiat 500")):
        (place := folder / "stanford_cars" / part / kind).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (24, 20), (12 * number, 0, 0)).save(place / f"{number}.jpg")
    shutil.make_archive(str(folder / "pets"), "zip", folder / "stanford_cars" / "train")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DIFFUSION_LAB_RUNS_DIR")
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(cache))
    # "python" finds nothing of the project but by the folder.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield folder
    for run in list_runs(folder / "checkpoints"):
        if run.state in ACTIVE:
            jobs.request(run, "stop")
    wait_while(folder / "checkpoints", ACTIVE)


def wait_while(runs_dir: Path, states: Collection[str]) -> None:
    """Wait while a run has one of these states or a request that it has not read."""
    end = time.monotonic() + 120
    while waiting := [
        run.name
        for run in list_runs(runs_dir)
        if run.state in states or (run.path / "request.json").exists()
    ]:
        assert time.monotonic() < end, f"{waiting} did not get ready"
        time.sleep(0.05)


def run_command(command: str) -> None:
    """As a shell would; but modules run in this process, which has PyTorch imported already."""
    for old, new in SUBSTITUTIONS.items():
        command = command.replace(old, new)
    if "--run checkpoints/two" in command:  # not over before it is stopped
        command = command.replace("--set steps=2 ", "--set steps=8000 ")
    words = shlex.split(command)
    if ">" in words:  # what it prints goes to a file
        words, (_, name) = words[:-2], words[-2:]
        with open(name, "w") as out, redirect_stdout(out):
            assert main(words[1:]) == 0, command
    elif words[0] == "diffusion-lab":
        assert main(words[1:]) == 0, command
        over = {"pause", "stop"} & set(words)
        wait_while(Path("checkpoints"), ACTIVE if over else ACTIVE - {"running"})
    elif words[:2] == ["python", "-m"]:
        with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as left:
            patched.setattr(sys, "argv", words[2:])
            runpy.run_module(words[2], run_name="__main__")
            sys.exit()  # it came to its end
        assert not left.value.code, command
    else:
        assert words[0] != "pip", f"{command}: would change the environment of the tests"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "document",
    [pytest.param(each, marks=pytest.mark.long if each in LONG else ()) for each in DOCUMENTS],
)
def test_a_document_shows_commands_that_work(
    document: str, repository: Path, trained: Path
) -> None:
    found = blocks(document)
    if not any(TRAINS in text for _, text in found):
        shutil.copytree(trained, repository / "checkpoints/my-cars")
    for language, text in found:
        assert language in LANGUAGES, f"{document}: a block of {language or 'no language'}"
        if language == "python":
            exec(compile(text, f"<python in {document}>", "exec"), {})
        for command in commands(text) if language == "bash" else []:
            if command not in NOT_RUN and DOWNLOADED not in command.lower():
                run_command(command)


def test_every_substitution_is_needed() -> None:
    found = all_commands()
    assert len(found) > 30
    assert [old for old in SUBSTITUTIONS if not any(old in each for each in found)] == []
    assert set(NOT_RUN) <= set(found)


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text):
            address = target[0] or target[1]
            if "://" in address:
                continue
            name, _, heading = address.partition("#")
            path = (ROOT / document).parent / name if name else ROOT / document
            assert path.exists(), f"{document}: {address}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in {title.lower().replace(" ", "-") for title in titles}, address
