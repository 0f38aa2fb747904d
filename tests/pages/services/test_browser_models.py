"""The models that the server offers to the engine in the browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from dashboard.services import browser_models
from diffusion_core.runs.checkpoint import Checkpoint, load_weights, read_checkpoint, save_weights
from diffusion_core.sampling.browser_model import browser_model
from tests.pages.asgi import get
from tests.tiny_runs import CLASSES, TINY, write_checkpoint

app = Starlette(routes=[Route(browser_models.ROUTE, browser_models.serve)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return read_checkpoint(write_checkpoint(tmp_path, 3))


def answer(address: str) -> tuple[int, dict[str, str], bytes]:
    return get(app, f"/{address}")


def test_a_model_is_served_at_its_address_only(checkpoint: Checkpoint) -> None:
    address = browser_models.address(checkpoint)
    status, headers, body = answer(address)
    assert (status, body) == (200, browser_model(checkpoint))
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert browser_models.address(checkpoint) == address
    assert str(checkpoint.path.name) not in address
    status, _, body = answer(address[:-1] + ("0" if address[-1] != "0" else "1"))
    assert (status, body) == (404, b"This link no longer holds. Reload the page.")


def test_a_checkpoint_that_is_gone_is_a_sentence(checkpoint: Checkpoint) -> None:
    address = browser_models.address(checkpoint)
    checkpoint.path.unlink()
    status, _, body = answer(address)
    assert status == 409
    assert b"can no longer be read" in body


def test_a_diverged_network_is_a_sentence(checkpoint: Checkpoint) -> None:
    weights = load_weights(checkpoint)
    weights["output.bias"][0] = float("nan")
    save_weights(checkpoint.path.parent.parent, 3, weights, TINY, CLASSES)
    status, _, body = answer(browser_models.address(checkpoint))
    assert status == 409
    assert b"its training has diverged" in body


def test_old_offers_are_forgotten(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_models, "MOST_OFFERS", 1)
    first = browser_models.address(checkpoint)
    other = read_checkpoint(write_checkpoint(tmp_path, 4))
    second = browser_models.address(other)
    assert answer(first)[0] == 404
    assert answer(second)[0] == 200
