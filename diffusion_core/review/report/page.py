"""A report as one HTML file, which opens without a network.

Whatever comes from outside is escaped. Should one place ever not be, the content security policy in
the head lets no script run but those that are put here, known by their hashes, and nothing load.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.evaluation.results import known_metrics
from diffusion_core.review.report.content import (
    CURVES,
    Ballot,
    Content,
    Group,
    ReportError,
    RunPart,
    Strip,
    about,
    ballot_sentence,
    tags_of,
)
from diffusion_core.review.report.images import ReportImage, ReportImageError
from diffusion_core.review.report.markdown import as_html
from diffusion_core.runs.remarks import Kind, Remark, shown_name
from diffusion_core.text import cut

HERE = Path(__file__).parent
MOST_OPEN = 16  # rows of the quality table that are not folded
COLOURS = 8  # that report.css has for runs

Source = Callable[[ReportImage], str]  # the address of an image


def images(content: Content) -> list[list[ReportImage]]:
    """The images that are on the page, those of a kind and a run together."""
    found = [[strip.image for strip in run.strips] for run in content.runs]
    for run in content.runs:
        found += [[shown.image for shown in group.images] for group in run.groups]
    return found


def render(content: Content, source: Source | None = None) -> bytes:
    """The file. `source`: another address for the images than their data. Raises ReportError."""
    source = source or data_address
    script, style = ((HERE / f"report.{kind}").read_text("utf-8") for kind in ("js", "css"))
    library, packed = plotly()
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {_hash(script)} {_hash(library)}"
    )
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_text(content.title)}</title><style>{style}</style></head>\n<body>\n"
    )
    data = json.dumps(_data(content), separators=(",", ":")).replace("<", "\\u003c")
    tail = (
        f'<script type="application/json" id="data">{data}</script>\n'
        f'<script type="text/plain" id="plotly">{packed}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )
    sections = [
        ("runs", "Runs", _overview(content)),
        ("differences", "Settings that differ", _differences(content)),
        ("curves", "Curves", _figure("curves", _curve_controls(content))),
        ("quality", "Quality", _quality(content)),
        ("samples", "Samples during training", _samples(content, source)),
        ("images", "Generated images", _images(content, source)),
        ("said", "Notes and decisions", _said(content)),
        ("votes", "Blind votes", _votes(content)),
        ("again", "Environment and how to train again", _again(content)),
        ("settings", "All settings", _settings(content)),
    ]
    there = [(id, title, body) for id, title, body in sections if body]
    links = "".join(f'<a href="#{id}">{title}</a>' for id, title, _ in there)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(content.made))
    body = (
        f"<header><h1>{_text(content.title)}</h1>"
        f"<p>Made on {made} with Diffusion Lab {_text(content.version)}.</p>"
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>\n'
        + "".join(
            f'<section id="{id}"><h2>{title}</h2>{body}</section>\n' for id, title, body in there
        )
        + _notes(content)
        + "</main>\n"
    )
    return (head + body + tail).encode("utf-8", "replace")


@functools.cache
def plotly() -> tuple[str, str]:
    """Plotly's script, and the same compressed as base64. Raises ReportError."""
    try:
        found = importlib.metadata.distribution("plotly")
        path = Path(str(found.locate_file("plotly/package_data/plotly.min.js")))
        script = path.read_text("utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise ReportError(
            "The package plotly is not installed; its figures are missing."
        ) from error
    packed = gzip.compress(script.encode(), mtime=0)
    return script, base64.b64encode(packed).decode()


def data_address(image: ReportImage) -> str:
    """Raises ReportImageError."""
    type, data = image.for_page()
    return f"data:image/{type};base64,{base64.b64encode(data).decode()}"


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _text(text: object) -> str:
    return html.escape(str(text))


def _data(content: Content) -> dict[str, Any]:
    """The data of the figures."""
    metrics = known_metrics([result for run in content.runs for result in run.results])
    runs = []
    for run in content.runs:
        config = run.seen.config
        quality = [
            {
                "step": result.spec.step,
                "way": cut(f"{result.way()}, {result.spec.n:,} images", 120),
                "values": {
                    name: [estimate.value, estimate.low, estimate.high]
                    for name, estimate in result.metrics.items()
                },
            }
            for result in run.results
        ]
        curves = {name: vars(curve) for name, curve in run.curves.items()}
        batch = config.batch_size if config is not None else 0
        runs.append({"name": run.name, "batch": batch, "curves": curves, "quality": quality})
    titles = {
        name: {"title": METRICS[name].title, "percent": METRICS[name].percent} for name in metrics
    }
    return {"runs": runs, "metrics": titles, "curves": CURVES}


# ---------------------------------------------------------------- the sections


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table of cells that are HTML already; the first of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(label)}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _pairs(values: Mapping[str, str], label: str) -> str:
    rows = [(_text(name), _text(value)) for name, value in values.items()]
    return _table(("Name", "Value"), rows, label) if rows else ""


def _name(content: Content, run: RunPart) -> str:
    k = content.runs.index(run)
    mark = f'<span class="mark run-{k % COLOURS}" aria-hidden="true"></span>'
    return f"{mark if len(content.runs) > 1 else ''}{_text(run.name)}"


def _overview(content: Content) -> str:
    names = list(dict.fromkeys(name for run in content.runs for name in run.facts))
    said = {run.name: tags_of(run.remarks) for run in content.runs}
    head = ["Run", *(["Decision and tags"] if any(said.values()) else []), *names]
    rows = []
    for run in content.runs:
        row = [_name(content, run)]
        if any(said.values()):
            row.append(_text(said[run.name]))
        rows.append([*row, *(_text(run.facts.get(name, "")) for name in names)])
    return _table(head, rows, "Runs")


def _differences(content: Content) -> str:
    if len(content.runs) < 2:
        return ""
    if not content.differences:
        return "<p>All settings are the same.</p>"
    rows = [
        [f"<code>{_text(each.name)}</code>", *(_text(cut(text, 120)) for text in each.texts())]
        for each in content.differences
    ]
    return _table(
        ["Setting", *(_name(content, run) for run in content.runs)], rows, "Settings that differ"
    )


def _figure(id: str, controls: str) -> str:
    return (
        f'<div class="controls" id="{id}-controls" hidden>{controls}</div>'
        f'<div class="figure" id="{id}-figure"><p class="fallback">The figures need a browser of '
        "2023 or later with JavaScript.</p></div>"
        if controls
        else ""
    )


def _select(id: str, label: str, options: Mapping[str, str]) -> str:
    inside = "".join(
        f'<option value="{_text(value)}">{_text(title)}</option>'
        for value, title in options.items()
    )
    return f'<label>{label} <select id="{id}">{inside}</select></label>'


def _curve_controls(content: Content) -> str:
    there = {
        name: title for name, title in CURVES.items() if any(name in r.curves for r in content.runs)
    }
    if not there:
        return ""
    axes = {"step": "steps", "images": "images seen", "seconds": "training time"}
    return (
        _select("curve", "Curve", there)
        + _select("axis", "by", axes)
        + '<label>Smoothing <input type="range" id="smoothing" min="0" max="0.98" step="0.02" '
        'value="0.9"></label>'
        + '<label><input type="checkbox" id="logarithmic" checked> logarithmic</label>'
    )


def _quality(content: Content) -> str:
    results = [result for run in content.runs for result in run.results]
    if not results:
        return ""
    names = known_metrics(results)
    rows = []
    for run in content.runs:
        for result in run.results:
            way = f"{result.way()}, {result.spec.n:,} images"
            row = [_name(content, run), f"{result.spec.step:,}", _text(way)]
            for name in names:
                estimate = result.metrics.get(name)
                row.append(METRICS[name].format_estimate(estimate) if estimate else "")
            rows.append(row)
    explained = {METRICS[name].title: METRICS[name] for name in names}
    head = ["Run", "Step", "Sampled by", *explained]
    help = "".join(
        f"<dt>{title} ({metric.direction})</dt><dd>{_text(metric.help)}</dd>"
        for title, metric in explained.items()
    )
    options = {name: METRICS[name].title for name in names}
    table = _table(head, rows, "Quality with 95 % intervals")
    if len(rows) > MOST_OPEN:
        table = f"<details><summary>All {len(rows)} measurements</summary>{table}</details>"
    return (
        _figure("quality", _select("metric", "Metric", options))
        + table
        + "<p>In brackets: 95 % intervals.</p>"
        + f"<details><summary>What the metrics are</summary><dl>{help}</dl></details>"
    )


def _image(source: Source, image: ReportImage, alt: str, more: str = "") -> str:
    try:
        return f'<img src="{source(image)}" alt="{_text(alt)}"{more}>'
    except ReportImageError as error:
        return f"<p{more}>{_text(error)}</p>"


def _samples(content: Content, source: Source) -> str:
    steps = sorted({strip.step for run in content.runs for strip in run.strips})
    if not steps:
        return ""
    slider = (
        '<div class="controls" id="samples-controls" hidden><label class="wide">Step '
        f'<output id="at">{steps[-1]:,}</output> <input type="range" id="step" min="0" '
        f'max="{len(steps) - 1}" value="{len(steps) - 1}" data-steps="{_text(json.dumps(steps))}">'
        "</label></div>"
    )
    parts = []
    for run in content.runs:
        if run.strips:
            strips = "".join(_strip(source, run, strip) for strip in run.strips)
            parts.append(f'<h3>{_name(content, run)}</h3><div class="strips">{strips}</div>')
    return (
        "<p>Of each run always from the same noise, with the averaged weights.</p>"
        + slider
        + "".join(parts)
    )


def _strip(source: Source, run: RunPart, strip: Strip) -> str:
    last = strip is run.strips[-1]
    alt = f"Samples of {run.name} at step {strip.step}"
    again = (
        _again_part(strip.command, "")
        if strip.command
        else '<p class="small">No command makes it again: the weights of this step were not kept, '
        "or the strip shows one image forming.</p>"
    )
    return (
        f'<figure data-step="{strip.step}"{"" if last else " hidden"}>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(alt)}">'
        f"{_image(source, strip.image, alt)}</div>"
        f"<figcaption>Step {strip.step:,}</figcaption>{again}</figure>"
    )


def _again_part(command: str, python: str) -> str:
    inside = f"<pre>{_text(command)}</pre>" if command else ""
    inside += f"<pre>{_text(python)}</pre>" if python else ""
    return f"<details><summary>Reproduce</summary>{inside}</details>" if inside else ""


def _images(content: Content, source: Source) -> str:
    parts = []
    for run in content.runs:
        groups = "".join(_group(content, run, group, source) for group in run.groups)
        if groups:
            parts.append(f"<h3>{_name(content, run)}</h3>{groups}")
    return "".join(parts)


def _group(content: Content, run: RunPart, group: Group, source: Source) -> str:
    images = []
    for shown in group.images:
        said = "".join(f"<li>{_remark(content, each)}</li>" for each in shown.remarks)
        images.append(
            f"<figure>{_image(source, shown.image, f'{run.name}, {shown.caption}')}"
            f"<figcaption>{_text(shown.caption)}</figcaption>"
            + (f"<ul>{said}</ul>" if said else "")
            + _again_part("", shown.python)
            + "</figure>"
        )
    lone = " lone" if len(images) == 1 else ""
    return (
        f'<div class="group"><h4>{_text(group.title)}</h4>'
        f"{_again_part(group.command, '')}"
        f'<div class="images{lone}">{"".join(images)}</div></div>'
    )


def _remark(content: Content, remark: Remark) -> str:
    """What somebody said, who and when, without what it is about."""
    kind = {Kind.STAR: "★", Kind.TAG: "tag", Kind.DECISION: "decision"}.get(remark.kind, "")
    text = as_html(remark.text) if remark.kind == Kind.NOTE else f" <b>{_text(remark.text)}</b>"
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(remark.time))
    who = f"{_text(shown_name(remark.by))}, " if content.parts.names and remark.by else ""
    edited = ", edited" if remark.edited else ""
    dot = "" if remark.kind == Kind.NOTE else "· "  # a note has paragraphs of its own
    return f'{kind}{text} <span class="small">{dot}{who}{when}{edited}</span>'


def _said(content: Content) -> str:
    parts = []
    for run in content.runs:
        items = "".join(
            f'<li><span class="about">{_text(about(each))}:</span> {_remark(content, each)}</li>'
            for each in run.said
        )
        if items:
            parts.append(f'<h3>{_name(content, run)}</h3><ul class="said">{items}</ul>')
    return "".join(parts)


def _votes(content: Content) -> str:
    return "".join(map(_ballot, content.ballots))


def _ballot(ballot: Ballot) -> str:
    rows = []
    for name, share in ballot.shares.items():
        strength = ballot.strengths.by_name[name]
        rows.append(
            [
                _text(name),
                f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})",
                f"{share.n:,}",
                f"{strength.value:.2f} ({strength.low:.2f} to {strength.high:.2f})",
            ]
        )
    table = _table(("Name", "Chosen where shown", "Votes", "Bradley–Terry strength"), rows, "Votes")
    return f"<h3>{_text(ballot.review)}</h3><p>{_text(ballot_sentence(ballot))}</p>{table}"


def _again(content: Content) -> str:
    parts = []
    for run in content.runs:
        command = f"<pre>{_text(run.command)}</pre>" if run.command else ""
        changes = "".join(
            f"<li>From step {change.step:,}: {_text(cut(json.dumps(change.settings), 300))}</li>"
            for change in run.seen.changes[:50]
        )
        if changes:
            command += f"<p>Changed on the way:</p><ul>{changes}</ul>"
        table = _pairs(run.environment, f"Environment of {run.name}")
        if command or table:
            details = f"<details><summary>Environment and data</summary>{table}</details>"
            parts.append(f"<h3>{_name(content, run)}</h3>{command}{details if table else ''}")
    return "".join(parts)


def _settings(content: Content) -> str:
    return "".join(
        f"<details><summary>{_name(content, run)}</summary>"
        f"{_pairs(run.settings, f'Settings of {run.name}')}</details>"
        for run in content.runs
        if run.settings
    )


def _notes(content: Content) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in content.every_note())
    if not items:
        return ""
    return f'<section id="notes"><h2>Left out</h2><ul>{items}</ul></section>\n'
