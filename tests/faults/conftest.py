"""What the faults share: processes that are ended whatever happens, disks, a cache of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import Disk, mount, unmount
from tests.faults.processes import Forks, end_processes_of


@pytest.fixture(autouse=True)
def forked_unless_asked_otherwise(request: pytest.FixtureRequest) -> None:
    if "true_python" not in request.fixturenames:
        request.getfixturevalue("quick_python")


@pytest.fixture
def true_python() -> None:
    """Leaves the test without the fork server: what it starts is a new Python, as for a user."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of decoded images for all tests, so that they are drawn once."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(autouse=True)
def cache_dir(runs_dir: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(images))
    return images


@pytest.fixture
def forks(tmp_path: Path, cache_dir: Path) -> Iterator[Forks]:
    """The processes of the test, which end with it; so do those that the app starts for it."""
    made = Forks(tmp_path)
    yield made
    made.end()
    end_processes_of(tmp_path)


@pytest.fixture(scope="module")
def module_forks(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Forks]:
    """Processes for what the tests of a file share, made before a test's own settings are."""
    settings = {"DIFFUSION_LAB_CACHE_DIR": str(images), "DIFFUSION_LAB_DEVICE": "cpu"}
    made = Forks(tmp_path_factory.mktemp("shared"), settings)
    yield made
    made.end()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 4 MB. Ask for it before `forks`, so that they end first."""
    made = mount(tmp_path / "disk", 4)
    yield made
    unmount(made)
