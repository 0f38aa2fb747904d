"""Reports of runs: complete, harmless whatever the folders hold, as large as was said before."""

from __future__ import annotations

import gzip
import io
import json
import shlex
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_core.cli.main import main, make_parser
from diffusion_core.cli.sample import make_spec
from diffusion_core.cli.train import given_settings, start_settings
from diffusion_core.media.images import png
from diffusion_core.review.report import paper
from diffusion_core.review.report.content import Parts, ReportError, gather
from diffusion_core.review.report.images import ReportImage, ReportImageError, some_of
from diffusion_core.review.report.markdown import as_html
from diffusion_core.review.report.recipes import sample_command, sample_python, train_command
from diffusion_core.review.report.write import expected_size, make_report, write_report
from diffusion_core.runs.config import RunConfig, with_settings
from diffusion_core.runs.history import read_history
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.presets import PRESETS, preset
from diffusion_core.runs.remarks import Kind, Subject, add, edit
from diffusion_core.runs.run import Run, load_run
from diffusion_core.runs.votes import cast
from diffusion_core.sampling.metadata import Kind as MadeKind
from diffusion_core.sampling.metadata import Made, entries, subject_of
from diffusion_core.sampling.series import create
from diffusion_core.sampling.spec import SamplingSpec
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_run

EVIL = "</script><script>alert(1)</script><img src=http://evil.example/x.png onerror=alert(2)>"


def noise(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def add_strips(run: Path, count: int, height: int = 16, images: int = 4) -> None:
    (run / "samples").mkdir()
    for k in range(count):
        data = png(noise(k, height, images * height))
        (run / "samples" / f"step-{10 * (k + 1):08d}.png").write_bytes(data)


def add_series(run: Path, name: str, n: int, side: int = 16, **settings: Any) -> SamplingSpec:
    checkpoint = load_run(run).latest_checkpoint()
    values: dict[str, Any] = {
        "run": run.name,
        "step": checkpoint.step,
        "n": n,
        "classes": checkpoint.classes,
    }
    values |= {"label": "each in turn" if checkpoint.classes else ""}
    spec = SamplingSpec(**values | settings)
    series = create(run / "drawings" / name, spec, checkpoint, batch=n)
    for k in range(n):
        series.image(k).write_bytes(png(noise(k, side, side), text=entries(spec, k)))
    return spec


def add_curves(run: Path, steps: int = 40) -> None:
    metrics = MetricsWriter(run / "metrics.sqlite")
    for step in range(1, steps + 1):
        now = 1e9 + 2.0 * step
        metrics.add([(step, "loss", 1 / step, now), (step, "learning_rate", 0.001, now)])
    metrics.add([(steps, "validation_loss", 0.5, now)])
    metrics.close()


class Page(HTMLParser):
    """What a browser would find in a report."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = write_run(tmp_path, "one", 20)
    add_strips(path, 3)
    add_curves(path)
    return path


def test_report_has_all_of_a_review(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path, "two", 20, config=TINY.replace(learning_rate=0.5))
    spec = add_series(run, "wheels", 3)
    image = subject_of(Made(spec, 1, MadeKind.IMAGE))
    add(run, Kind.NOTE, "Round **wheels**.", image, by="ann")
    add(run, Kind.TAG, "for the talk", by="ann")
    add(run, Kind.DECISION, "promote", by="ben")
    note = add(run, Kind.NOTE, "first", Subject(step=20), by="cleo")
    edit(run, note.id, "second", by="cleo")
    for by in ("ann", "ben"):
        cast([run, other], "sharper", "seed 1", ("two", "one"), "one", by)
    found = Page(make_report([Run(run), Run(other)], ".html", title="What we saw"))
    for text in (
        "What we saw",
        "promote, for the talk",
        "learning_rate",
        "0.5",
        "step 20, image 2 of seed 0",
        "second",
        "edited",
        "cleo",
        "2 votes of 2 people",
        "100% (34% to 100%)",
        "One was always or never chosen",
        "first=1, n=1",
    ):
        assert text in found.text, text
    assert "first<" not in found.text
    assert len(found.all("img")) == 3 + 3
    assert all(each["src"].startswith("data:image/png;base64,") for each in found.all("img"))
    assert all(each["alt"] for each in found.all("img"))
    kept = Image.open(io.BytesIO(b64decode(found.all("img")[-1]["src"].partition(",")[2])))
    assert json.loads(kept.info["diffusion_lab"])["picture"] == 2  # it can be used again
    data = json.loads(found.scripts[0])
    assert data["runs"][0]["curves"]["loss"]["step"] == list(range(1, 41))
    assert data["runs"][0]["curves"]["loss"]["seconds"][-1] == 78
    assert "var Plotly" in gzip.decompress(b64decode(found.scripts[1])).decode()


def test_parts_can_be_left_out(run: Path) -> None:
    add(run, Kind.NOTE, "a note", by="ann")
    cast([run], "sharper", "seed 1", ("two", "one"), "one", "ben")
    runs = [load_run(run)]
    whole = make_report(runs, ".html").decode()
    assert "a note" in whole and "ann, " in whole and "sharper" in whole
    unnamed = make_report(runs, ".html", Parts(names=False)).decode()
    assert "a note" in unnamed and "ann, " not in unnamed
    bare = Page(make_report(runs, ".html", Parts(samples=False, remarks=False, votes=False)))
    assert "a note" not in bare.text and "sharper" not in bare.text and not bare.all("img")
    # Nobody sees what others have voted before voting.
    for person, seen in (("cleo", False), ("ben", True)):
        assert ("sharper" in make_report(runs, ".html", Parts(person=person)).decode()) is seen


def test_nothing_from_outside_runs_or_loads(tmp_path: Path) -> None:
    """Texts of every kind are markup of an attacker; none becomes part of the page's."""
    config = RunConfig(**{**dict(TINY), "data": f"folder:/{EVIL}"})
    path = write_run(tmp_path, EVIL.replace("/", "_"), 20, config=config, device=EVIL, error=EVIL)
    resolved = {"classes": [EVIL], "device": EVIL, "versions": {EVIL: EVIL}, "data_content": EVIL}
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | {"resolved": resolved}))
    add_strips(path, 1)
    add_curves(path)
    add(
        path, Kind.NOTE, f"{EVIL} [x](javascript:alert(3)) ![y](http://evil.example/y.png)", by=EVIL
    )
    add(path, Kind.TAG, EVIL[:40], by=EVIL)
    cast([path], EVIL, EVIL, (EVIL, "two"), EVIL, EVIL)
    data = make_report([Run(path)], ".html", title=EVIL)
    found = Page(data)
    assert len(found.all("script")) == 3
    assert all("onerror" not in attributes for _, attributes in found.tags)
    assert {each["src"][:5] for each in found.all("img")} == {"data:"}
    links = {each["href"] for each in found.all("a")} - {"http://evil.example/y.png"}  # to click
    assert {link[0] for link in links} == {"#"}
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in found.tags}
    policy = next(each["content"] for each in found.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "script-src 'sha256-" in policy and "script-src 'unsafe" not in policy
    assert make_report([Run(path)], ".pdf", title=EVIL).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b** *c* _d_ `<i>`", "<p>a <b>b</b> <i>c</i> <i>d</i> <code>&lt;i&gt;</code></p>"),
        ("- x\n- y\n\nz", "<ul><li>x</li><li>y</li></ul><p>z</p>"),
        ("# h\n```\n*a*\n```", "<h5>h</h5><pre>*a*</pre>"),
        ("2*3*4 snake_case_name ** x **", "<p>2*3*4 snake_case_name ** x **</p>"),
        ("**a *b** c*", "<p><b>a *b</b> c*</p>"),
        (
            '[**x**](https://a.b/?c=1&d="2)',
            '<p>[<b>x</b>](https://a.b/?c=1&amp;d="2)</p>',
        ),
        ("[x](https://a.b/?c=1&d=2)", '<p><a href="https://a.b/?c=1&amp;d=2">x</a></p>'),
        ("[x](javascript:alert(1)) <b>", "<p>[x](javascript:alert(1)) &lt;b&gt;</p>"),
    ],
)
def test_markdown_of_notes(text: str, html: str) -> None:
    assert as_html(text) == html


# ---------------------------------------------------------------- how to make it again


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        with_settings(preset("tiny"), {"prediction_type": "flow_prediction", "schedule": {}}),
        with_settings(preset("tiny"), {"prediction_type": "flow_x_0", "min_snr_gamma": 3.0}),
        with_settings(preset("tiny"), {"prediction_type": "epsilon"}),
        preset("lecture").replace(min_snr_gamma=5.0, data="folder:/a b/'c'", network_args={}),
        preset("small").replace(keep_best=False, ema_decays={"long": 0.5}, threads=3),
    ],
)
def test_train_command_gives_the_same_settings(config: RunConfig) -> None:
    name, *words = shlex.split(train_command("again", config))
    assert name == "diffusion-lab"
    arguments = make_parser().parse_args(words)
    settings = given_settings(arguments)
    again = with_settings(start_settings(arguments, settings), settings)
    assert again == config.replace(preset=again.preset)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "ddim", "steps": 7, "seed": 3, "eta": 0.5, "spacing": "leading", "exact": True},
        {
            "label": "bus",
            "guidance_scale": 2.5,
            "negative": "van",
            "guidance_interval": (3.0, 17.5),
        },
        {"label": "any class", "sampler": "ddpm", "variance": "large", "steps": 20},
        {
            "guidance_scale": 1.5,
            "guidance_interval": (3.0, 17.5),
            "guidance": "autoguidance",
            "guide_step": 10,
        },
    ],
)
def test_sample_command_and_python_give_the_same_spec(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = load_run(write_run(tmp_path, "one", 10, 20))
    usual: dict[str, Any] = {"label": "each in turn", "steps": 12, "n": 4}
    spec = SamplingSpec(run="one", step=20, classes=CLASSES, **usual | settings)
    words = shlex.split(sample_command(spec, "out.png"))[1:]
    assert make_spec(make_parser().parse_args(words), run, run.checkpoint(20)) == spec
    names: dict[str, Any] = {}
    code = sample_python(spec, 2).replace("'one'  #", "'one') if 0 else None  #")
    setup, _, make = code.partition("images = ")
    setup = "\n".join(line for line in setup.splitlines() if not line.startswith("run = "))
    exec(setup, names)
    assert names["spec"] == spec
    assert make.startswith('spec.make(load_model(run.checkpoint(spec.step), "cpu"')
    guided = ", guide=spec.load_guide(run.checkpoint(spec.step))" if spec.autoguided else ""
    assert f", first=2, n=1{guided})" in make


def test_sample_command_of_the_lecture(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, "one", 20, config=LECTURE))
    spec = SamplingSpec(run="one", step=20, n=2, sampler="ddpm", steps=6, as_lecture=True)
    words = shlex.split(sample_command(spec, "out.png"))[1:]
    assert make_spec(make_parser().parse_args(words), run, run.checkpoint(20)) == spec


# ---------------------------------------------------------------- sizes


def large_runs(folder: Path, count: int) -> list[Run]:
    """Runs with more of everything than fits, of images that cannot be compressed."""
    runs = []
    for k in range(count):
        path = write_run(folder, f"large-{k}", 20)
        (path / "samples").mkdir()
        strip, image = noise(k, 128, 16 * 128), noise(k, 128, 128)
        for step in range(26):
            data = png(np.roll(strip, step, 1))
            (path / "samples" / f"step-{step:08d}.png").write_bytes(data)
        for name in ("a", "b", "c", "d"):
            spec = SamplingSpec(run=path.name, step=20, n=20, classes=CLASSES, label="bus")
            series = create(path / "drawings" / name, spec, load_run(path).checkpoint(20), 20)
            for number in range(20):
                series.image(number).write_bytes(png(np.roll(image, 100 * number + ord(name), 1)))
        for number in range(40):
            add(path, Kind.NOTE, f"{number} " + "<&>" * 1300, by="ann")
        add_curves(path, 2000)
        runs.append(load_run(path))
    return runs


@pytest.mark.long
def test_eight_of_the_largest_runs_stay_below_25_mb(tmp_path: Path) -> None:
    runs = large_runs(tmp_path, 8)
    for format, taken in ((".html", runs), (".pdf", runs[:2])):  # a PDF has fewer images
        expected = expected_size(taken, format)
        size = len(make_report(taken, format))
        assert 3_000_000 < size < 25_000_000
        assert abs(expected - size) < 0.15 * size


def test_size_is_known_before(run: Path) -> None:
    add_series(run, "a", 5)
    add(run, Kind.NOTE, "a note", by="ann")
    for format in (".html", ".pdf"):
        size = len(make_report([Run(run)], format))
        assert abs(expected_size([Run(run)], format) - size) < 0.15 * size


def test_images_fit(tmp_path: Path) -> None:
    file = tmp_path / "strip.png"
    file.write_bytes(png(noise(0, 64, 1280)))
    assert ReportImage(file, 10**6).for_page() == ("png", file.read_bytes())
    for most in (40_000, 4_000, 900):
        type, data = ReportImage(file, most).for_page()
        assert type == "webp" and len(data) <= most
        assert len(ReportImage(file, most).for_paper()) <= most
    cut = Image.open(io.BytesIO(ReportImage(file, 10**6, squares=4).for_page()[1]))
    assert cut.size == (256, 64)
    for name, data in (("text.png", b"no image"), ("half.png", file.read_bytes()[:5000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ReportImageError, match=name):
            ReportImage(tmp_path / name, 100).for_page()
    with pytest.raises(ReportImageError, match="cannot be read"):
        ReportImage(tmp_path / "missing.png", 100).for_page()
    assert some_of(3, 5) == [0, 1, 2]
    assert some_of(20, 5) == [0, 5, 10, 14, 19]


def test_what_cannot_be_read_is_named(run: Path) -> None:
    (run / "samples" / "step-00000010.png").write_bytes(b"no image")
    (run / "metrics.sqlite").write_bytes(b"no database" * 100)
    (run / "quality").mkdir()
    (run / "quality" / "step-00000010-abc.json").write_text("{")
    (run / "drawings" / "odd").mkdir(parents=True)
    text = Page(make_report([Run(run)], ".html")).text
    assert "step-00000010.png is no PNG image" in text
    for said in ("metrics.sqlite is damaged", "step-00000010-abc.json", "odd has no order.json"):
        assert said in text
    assert make_report([Run(run)], ".pdf").startswith(b"%PDF")


def test_pdf_has_the_text_and_the_images(run: Path) -> None:
    add_series(run, "a", 3)
    add(run, Kind.NOTE, "- **bold**\n- `code`\n\n# head\n```\nx\n```", by="ann")
    add(run, Kind.NOTE, "漢 is in no font here", by="ann")
    data = make_report([Run(run)], ".pdf", title="A heading")
    assert data.count(b"/DCTDecode") == 3 + 3
    # Text that cannot be set is replaced, and the last line of the paper says so.
    made = paper._Paper(gather([load_run(run)], Parts()), lambda image: paper.placeholder())
    assert made.story()[-1].text == "Characters that the font does not have are replaced."


# ---------------------------------------------------------------- the command line


def test_command_states_the_size_and_writes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.html"
    assert main(["report", str(run), "--out", str(out), "--dry-run"]) == 0
    assert "about 2.0 MB" in capsys.readouterr().out and not out.exists()
    assert main(["report", str(run), "--out", str(out), "--without", "samples", "names"]) == 0
    assert [each.format for each in read_history(run).entries] == ["report.html"]
    assert "Written: 2.0 MB" in capsys.readouterr().out
    assert not Page(out.read_bytes()).all("img")
    for arguments, said in (
        ([str(run), "--out", "x.txt"], "--out is x.txt; it must be a file that ends with .html"),
        ([str(run), str(run), "--out", str(out)], "Two of the runs have the same name"),
        ([str(run)] * 9 + ["--out", str(out)], "A report takes 1 to 8 runs, not 9."),
        ([str(tmp_path / "no"), "--out", str(out)], "There is no run"),
        ([str(run), "--out", str(tmp_path / "no" / "x.pdf")], "There is no folder"),
    ):
        assert main(["report", *arguments]) in (1, 2)
        assert said in capsys.readouterr().err


def test_report_needs_known_formats(run: Path) -> None:
    with pytest.raises(ReportError, match=r"\.html or \.pdf"):
        write_report([Run(run)], run / "report.docx")
