"""A cache and a finished run for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_core.cli.main import main
from tests.core.cli.commands import TINY


@pytest.fixture(scope="module", autouse=True)
def images_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images_cache: None) -> Path:
    """A finished run of four steps, with weights of steps 2 and 4. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--run", str(run), "--steps", "4", *TINY]) == 0
    return run
