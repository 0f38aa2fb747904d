"""The view Carry: runs as archives for operators, streamed, and runs out of archives."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import onnx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from streamlit.testing.v1 import AppTest

from dashboard.services import downloads
from diffusion_core.runs.archive import pack, plan_archive
from diffusion_core.runs.history import read_history
from diffusion_core.runs.run import load_run
from tests.pages.app import open_page, press, words
from tests.pages.asgi import get
from tests.tiny_runs import write_run

SERVER = Starlette(routes=[Route(downloads.ROUTE, downloads.serve)])


def links(app: AppTest) -> dict[str, str]:
    """The addresses of the archives, by the labels of their buttons."""
    found = [each.proto for each in app.get("link_button")]
    return {each.label: each.url for each in found if each.url.startswith("downloads/")}


def test_a_chosen_run_is_downloaded_and_imported_under_another_name(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(runs_dir, "cars", 20, 40))
    write_run(runs_dir, "empty")
    (runs_dir / "empty" / "config.json").write_text("{")
    app = open_page("review.py", view="Carry", runs=["cars", "empty"], carry_weights="All")
    offered = links(app)
    assert list(offered) == ["cars, at most 0.2 MB", "ONNX, step 40"]
    address = offered["cars, at most 0.2 MB"]
    assert "empty: config.json is not readable JSON." in words(app)
    assert "weights: 20, 40" in words(app)
    app.run()
    assert links(app) == offered  # the same for each look

    expected = b"".join(pack(plan_archive(run, "all"), []))
    status, headers, data = get(SERVER, f"/{address}")
    assert (status, data) == (200, expected)
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''cars.zip"
    assert read_history(run.path).entries[-1].format == "archive"

    app.file_uploader(key="import-0").set_value(("cars.zip", data, "application/zip")).run()
    press(app, "Import")
    assert "There is already a run called cars; choose another name." in words(app)
    app.text_input(key="import-name-0").set_value("again").run()
    press(app, "Import")
    assert "again is imported. It is in the table now." in words(app)
    assert load_run(runs_dir / "again").weights()[-1][0] == 40
    app.file_uploader(key="import-1").set_value(("x.zip", b"x" * 99, "application/zip")).run()
    press(app, "Import")
    assert "This is no archive of a run, or it is cut short." in words(app)

    run.checkpoint(20).path.unlink()
    (run.path / "config.json").unlink()
    assert get(SERVER, f"/{address}")[::2] == (409, b"config.json is missing.")
    assert get(SERVER, "/downloads/guessed")[0] == 404
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    refused = "Only the operator can download a run as an archive"
    assert get(SERVER, f"/{address}")[::2] == (403, f"{refused}.".encode())
    app.run()
    assert links(app) == {}
    assert f"{refused}; your role is viewer." in words(app)
    assert "Only the operator can import a run; your role is viewer." in words(app)
    assert not app.file_uploader


def test_the_network_of_the_newest_chosen_weights_is_offered_as_onnx(runs_dir: Path) -> None:
    run = load_run(write_run(runs_dir, "cars", 20, 40))
    app = open_page("review.py", view="Carry", runs=["cars"], carry_weights="All")
    address = links(app)["ONNX, step 40"]
    status, headers, data = get(SERVER, f"/{address}")
    assert status == 200
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''cars-onnx.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [f"cars-onnx/{name}" for name in ("README.md", "model.onnx", "sample_with_onnx.py")]
        assert archive.namelist() == names
        assert b"# cars, step 40" in archive.read(names[0])
        assert onnx.load_from_string(archive.read(names[1])).graph.name == "Unet"
    assert read_history(run.path).entries[-1].format == "onnx"
    run.checkpoint(40).path.unlink()
    assert get(SERVER, f"/{address}")[::2] == (409, b"cars has no checkpoint of step 40.")
