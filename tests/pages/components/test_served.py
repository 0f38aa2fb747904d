"""What the server offers of a run's folder: the images and films in `samples`, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Route

from dashboard.components.film.served import ROUTE, samples_address, serve
from tests.pages.asgi import get

app = Starlette(routes=[Route(ROUTE, serve)])


def answer(address: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request."""
    return get(app, f"/{address}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (32, 16)).save(samples / "step-00000004.png")
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "notes.png").write_bytes(b"of the run")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("a.PNG", "image/png"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.mp4", "video/mp4"),
    ],
)
def test_images_and_films_are_served_as_what_they_are(run: Path, name: str, kind: str) -> None:
    (run / "samples" / name).write_bytes(b"<script>alert(1)</script>")
    status, headers, body = answer(f"{samples_address(run / 'samples')}/{name}")
    assert (status, body) == (200, b"<script>alert(1)</script>")
    assert headers["content-type"] == kind
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["a.html", "a.svg", "a.json", "a.js", "a", ".png", "a.png.html", "a.txt", "a.jpg", "a.pickle"],
)
def test_no_other_file_is_served(run: Path, name: str) -> None:
    (run / "samples" / name).write_bytes(b"<script>alert(1)</script>")
    status, headers, body = answer(f"{samples_address(run / 'samples')}/{name}")
    assert (status, body) == (404, b"There is no such image.")
    assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "../notes.png",
        "..",
        ".",
        "%2e%2e/notes.png",
        "x/../../notes.png",
        "a\0.png",
        "/etc/passwd",
    ],
)
def test_nothing_outside_the_folder_is_served(run: Path, name: str) -> None:
    assert answer(f"{samples_address(run / 'samples')}/{name}")[0] == 404


def test_links_out_of_the_folder_folders_and_pipes_are_not_served(run: Path) -> None:
    samples = run / "samples"
    (samples / "link.png").symlink_to(run.parent / "secret.png")
    (samples / "run.png").symlink_to("../notes.png")
    (samples / "same.png").symlink_to("step-00000004.png")
    (samples / "loop.png").symlink_to("loop.png")
    (samples / "folder.png").mkdir()
    os.mkfifo(samples / "pipe.png")
    found = {
        name: answer(f"{samples_address(samples)}/{name}.png")[0]
        for name in ("link", "run", "same", "loop", "folder", "pipe")
    }
    assert found == {"link": 404, "run": 404, "same": 200, "loop": 404, "folder": 404, "pipe": 404}


def test_a_samples_folder_that_is_a_link_is_not_served_but_a_linked_run_is(run: Path) -> None:
    odd = run.parent / "odd"
    odd.mkdir()
    (odd / "samples").symlink_to(run.parent)
    assert answer(f"{samples_address(odd / 'samples')}/secret.png")[0] == 404
    (run.parent / "linked").symlink_to(run)
    assert (
        answer(f"{samples_address(run.parent / 'linked' / 'samples')}/step-00000004.png")[0] == 200
    )


def test_a_folder_that_no_page_has_shown_is_not_served(run: Path) -> None:
    assert answer("samples/0123456789abcdef/step-00000004.png")[0] == 404
