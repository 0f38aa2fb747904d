"""What all tests share: one thread, fixed seeds, no network, and a folder of runs of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before the libraries read them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import numpy as np
import pytest
import torch

from dashboard.services import settings
from tests.forks.client import PYTHON, launcher, share

torch.set_num_threads(1)
# The same examples every time, however slow the machine, and no folder of remembered ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")
# Other examples every time, and many: `pytest --hypothesis-profile long`.
hypothesis.settings.register_profile("long", max_examples=100_000, deadline=None, database=None)


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist, which inherit the environment, share a fork server."""
    if config.getoption("numprocesses", None):
        share()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for runs, which the app uses; no setting of this machine reaches a test."""
    path = tmp_path / "runs"
    path.mkdir()
    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv(f"{settings.PREFIX}RUNS_DIR", str(path))
    monkeypatch.setenv(f"{settings.PREFIX}DEVICE", "cpu")
    monkeypatch.setenv(settings.ROLE, "operator")  # AppTest has no connection to tell it from
    monkeypatch.setattr(settings, "SECRETS_FILE", tmp_path / "no-secrets.toml")
    monkeypatch.setattr(settings, "secrets_files", lambda: [settings.SECRETS_FILE])
    return path


@pytest.fixture(scope="session", autouse=True)
def no_installed_components() -> Iterator[None]:
    """Every AppTest looks through all installed packages for components, which takes 0.1 s; the app
    has only its own."""
    with pytest.MonkeyPatch.context() as patch:
        scan = "streamlit.components.v2.manifest_scanner.scan_component_manifests"
        patch.setattr(scan, list, raising=False)
        yield


@pytest.fixture
def quick_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test starts with this Python, or as torchrun, is forked from one that has PyTorch
    imported."""
    places = [str(launcher().parent), str(Path(PYTHON).parent), os.environ["PATH"]]
    monkeypatch.setattr(sys, "executable", str(launcher()))
    monkeypatch.setenv("PATH", os.pathsep.join(places))
