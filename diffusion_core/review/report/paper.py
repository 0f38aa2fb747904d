"""A report as a PDF for A4. ReportLab is imported here alone, since only this needs it."""

from __future__ import annotations

import functools
import html
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image as PillowImage
from reportlab import rl_config
from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect, String
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.evaluation.results import known_metrics
from diffusion_core.review.report.content import (
    CURVES,
    Content,
    Curve,
    about,
    ballot_sentence,
    tags_of,
)
from diffusion_core.review.report.images import ReportImage, ReportImageError, some_of
from diffusion_core.review.report.markdown import blocks
from diffusion_core.runs.remarks import Kind, Remark, shown_name
from diffusion_core.text import cut

rl_config.useA85 = 0  # images as text would be a quarter larger
# Regular and bold, the first that the system has; ReportLab brings the last.
FONTS = (
    ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf"),
    ("Arial.ttf", "Arial Bold.ttf"),
    ("arial.ttf", "arialbd.ttf"),
    ("Vera.ttf", "VeraBd.ttf"),
)
COLOURS = "#2a6fb5 #c4530a #1b7f4d #8e44ad #b3261e #0f7c86 #8a6d00 #5b636b".split()
GREY, LINE, PANEL = HexColor("#5b636b"), HexColor("#d9dde2"), HexColor("#f4f5f7")
MARGIN = 16 * mm
WIDTH = A4[0] - 2 * MARGIN
PLOTTED = ("loss", "validation_loss", "learning_rate")
STRIPS = 6  # of a run, over its steps
MOST_ROWS = 60  # of the quality table
IMAGE = 19 * mm  # of a generated image

LONG_WORD = re.compile(r"(\S{100})(?=\S)")  # which would take long to break into lines

Source = Callable[[ReportImage], bytes]  # the JPEG of an image


def images(content: Content) -> list[list[ReportImage]]:
    """The images that are on the paper, those of a kind and a run together."""
    found = []
    for run in content.runs:
        found.append([run.strips[k].image for k in some_of(len(run.strips), STRIPS)])
        found += [[shown.image for shown in group.images] for group in run.groups]
    return found


def render(content: Content, source: Source | None = None) -> bytes:
    """The file. `source`: other bytes for the images than their own."""
    made = _Paper(content, source or ReportImage.for_paper)
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=content.title,
        author="Diffusion Lab",
    )
    document.build(made.story(), onFirstPage=made.footer, onLaterPages=made.footer)
    return buffer.getvalue()


@functools.cache
def fonts() -> tuple[str, str, frozenset[int]]:
    """The names of the regular and the bold font, and the characters that both have."""
    for regular, bold in FONTS:
        try:
            found = [TTFont(f"report-{name}", name) for name in (regular, bold)]
        except (TTFError, OSError):
            continue
        for font in found:
            pdfmetrics.registerFont(font)
        names = (found[0].fontName, found[1].fontName)
        pdfmetrics.registerFontFamily(names[0], *names, *names)
        return *names, frozenset.intersection(*(frozenset(f.face.charToGlyph) for f in found))
    raise OSError("ReportLab's own fonts are missing; install it again.")


class _Paper:
    def __init__(self, content: Content, source: Source) -> None:
        self.content = content
        self.source = source
        self.regular, self.bold, self.characters = fonts()
        self.missing = False

        def style(name: str, size: float, **more: Any) -> ParagraphStyle:
            more = {"fontName": self.regular, "leading": 1.35 * size, "wordWrap": "LTR"} | more
            return ParagraphStyle(name, fontSize=size, splitLongWords=1, **more)

        self.body = style("body", 9, spaceAfter=3)
        self.small = style("small", 7.5, textColor=GREY)
        self.cell = style("cell", 7.5)
        self.head = style("head", 7.5, fontName=self.bold)
        self.code = style("code", 7, backColor=PANEL, borderPadding=3, spaceBefore=3, spaceAfter=6)
        self.title = style("title", 18, fontName=self.bold, spaceAfter=2)
        self.h2 = style("h2", 13, fontName=self.bold, spaceBefore=12, spaceAfter=4, keepWithNext=1)
        self.h3 = style("h3", 10, fontName=self.bold, spaceBefore=6, spaceAfter=3, keepWithNext=1)

    # ------------------------------------------------------------ parts

    def plain(self, text: object) -> str:
        """A text in the font's characters, escaped for a paragraph."""
        return self.drawable(html.escape(str(text), quote=False))

    def drawable(self, text: str) -> str:
        found = "".join(
            each if ord(each) in self.characters or each in "\n\t" else "\N{REPLACEMENT CHARACTER}"
            for each in text
        )
        self.missing = self.missing or found != text
        gap = "\N{REPLACEMENT CHARACTER}"
        return found if ord(gap) in self.characters else found.replace(gap, "?")

    def paragraph(self, text: object, style: ParagraphStyle) -> Paragraph:
        return Paragraph(self.plain(text), style)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], first: float) -> Table:
        """A table of texts over the width of the page, its first column `first` of it wide."""
        cells = [[self.paragraph(text, self.head) for text in head]]
        cells += [[self.paragraph(text, self.cell) for text in row] for row in rows]
        rest = WIDTH * (1 - first) / max(1, len(head) - 1)
        return Table(
            cells,
            colWidths=[WIDTH * first, *([rest] * (len(head) - 1))],
            repeatRows=1,
            hAlign="LEFT",
            style=[
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 5),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ],
        )

    def image(self, image: ReportImage, width: float, height: float) -> Flowable:
        """The image, as large as it can be within these."""
        try:
            data = self.source(image)
        except ReportImageError as error:
            return self.paragraph(error, self.small)
        across, down = ImageReader(io.BytesIO(data)).getSize()
        scale = min(width / across, height / down)
        return Image(io.BytesIO(data), across * scale, down * scale, hAlign="LEFT")

    # ------------------------------------------------------------ sections

    def story(self) -> list[Flowable]:
        content = self.content
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(content.made))
        found: list[Flowable] = [
            self.paragraph(content.title, self.title),
            self.paragraph(f"Made on {made} with Diffusion Lab {content.version}.", self.small),
        ]
        sections = [
            ("Runs", self.overview()),
            ("Settings that differ", self.differences()),
            ("Curves", self.curves()),
            ("Quality", self.quality()),
            ("Samples during training", self.samples()),
            ("Generated images", self.images()),
            ("Notes and decisions", self.said()),
            ("Blind votes", self.votes()),
            ("Environment and how to train again", self.again()),
            ("All settings", self.settings()),
            ("Left out", self.notes()),
        ]
        for title, body in sections:
            if body:
                found += [CondPageBreak(60 * mm), self.paragraph(title, self.h2), *body]
        if self.missing:
            found.append(
                self.paragraph("Characters that the font does not have are replaced.", self.small)
            )
        return found

    def overview(self) -> list[Flowable]:
        """Facts as rows and runs as columns: the page is narrow."""
        runs = self.content.runs
        names = list(dict.fromkeys(name for run in runs for name in run.facts))
        rows = [[name, *(run.facts.get(name, "") for run in runs)] for name in names]
        said = [tags_of(run.remarks) for run in runs]
        if any(said):
            rows.insert(0, ["Decision and tags", *said])
        return [self.table(["", *(run.name for run in runs)], rows, self.first(20))]

    def first(self, usual: float) -> float:
        return usual / 100 if len(self.content.runs) > 2 else 0.3

    def differences(self) -> list[Flowable]:
        runs = self.content.runs
        if len(runs) < 2:
            return []
        if not self.content.differences:
            return [self.paragraph("All settings are the same.", self.body)]
        rows = [
            [each.name, *(cut(text, 120) for text in each.texts())]
            for each in self.content.differences
        ]
        return [self.table(["Setting", *(run.name for run in runs)], rows, self.first(24))]

    def curves(self) -> list[Flowable]:
        found: list[Flowable] = []
        for name, title in CURVES.items():
            there = [
                (k, run.name, run.curves[name])
                for k, run in enumerate(self.content.runs)
                if name in run.curves
            ]
            if there and name in PLOTTED:
                found.append(self.plot(title, there, logarithmic=name != "learning_rate"))
        return found

    def plot(
        self, title: str, curves: Sequence[tuple[int, str, Curve]], logarithmic: bool
    ) -> Flowable:
        """Curves over the steps; `logarithmic`: the values, where all are above 0."""
        values = [value for _, _, curve in curves for value in curve.value]
        logarithmic = logarithmic and min(values) > 0
        scale = math.log10 if logarithmic else float
        low, high = scale(min(values)), scale(max(values))
        high = high if high > low else low + 1
        last = max(1, *(curve.step[-1] for _, _, curve in curves))
        left, bottom, width, height = 42.0, 22.0, WIDTH - 50, 118.0
        drawing = Drawing(WIDTH, bottom + height + 12 + 11 * len(curves))
        drawing.add(
            Rect(left, bottom, width, height, strokeColor=LINE, fillColor=None, strokeWidth=0.5)
        )

        def y(value: float) -> float:
            return bottom + height * (scale(value) - low) / (high - low)

        def write(x: float, at: float, text: str, anchor: str = "start") -> None:
            drawing.add(
                String(
                    x,
                    at,
                    self.drawable(text),
                    fontName=self.regular,
                    fontSize=7,
                    textAnchor=anchor,
                    fillColor=GREY,
                )
            )

        for part in (0, 1 / 3, 2 / 3, 1):
            at = low + part * (high - low)
            value = 10**at if logarithmic else at
            line = bottom + part * height
            drawing.add(Line(left, line, left + width, line, strokeColor=LINE, strokeWidth=0.3))
            write(left - 3, line - 2.5, f"{value:.3g}", "end")
            write(left + part * width, bottom - 10, f"{last * part:,.0f}", "middle")
        write(left + width / 2, bottom - 19, "step", "middle")
        for nth, (k, name, curve) in enumerate(curves):
            colour = HexColor(COLOURS[k % len(COLOURS)])
            points = [
                place
                for step, value in zip(curve.step, curve.value, strict=True)
                for place in (left + width * step / last, y(value))
            ]
            if len(points) > 2:
                drawing.add(PolyLine(points, strokeColor=colour, strokeWidth=0.7))
            at = bottom + height + 6 + 11 * (len(curves) - 1 - nth)
            drawing.add(
                Line(left, at + 2.5, left + 14, at + 2.5, strokeColor=colour, strokeWidth=2)
            )
            write(left + 18, at, cut(name, 60))
        return KeepTogether([self.paragraph(title.capitalize(), self.h3), drawing])

    def quality(self) -> list[Flowable]:
        results = [(run, result) for run in self.content.runs for result in run.results]
        if not results:
            return []
        names = known_metrics([result for _, result in results])
        found: list[Flowable] = []
        for start in range(0, len(names), 4):  # columns that fit the page
            some = names[start : start + 4]
            rows = []
            for run, result in results[-MOST_ROWS:]:
                way = f"{result.way()}, {result.spec.n:,} images"
                row = [f"{run.name}, step {result.spec.step:,}", way]
                for name in some:
                    estimate = result.metrics.get(name)
                    row.append(METRICS[name].format_estimate(estimate) if estimate else "")
                rows.append(row)
            head = ["Checkpoint", "Sampled by", *(METRICS[name].title for name in some)]
            found += [self.table(head, rows, 0.2), Spacer(1, 6)]
        return [*found, self.paragraph("In brackets: 95 % intervals.", self.small)]

    def samples(self) -> list[Flowable]:
        found: list[Flowable] = []
        for run in self.content.runs:
            strips = [run.strips[k] for k in some_of(len(run.strips), STRIPS)]
            rows = [
                [
                    self.paragraph(f"Step {strip.step:,}", self.small),
                    self.image(strip.image, WIDTH - 22 * mm, 20 * mm),
                ]
                for strip in strips
            ]
            if rows:
                found += [self.paragraph(run.name, self.h3), _grid(rows, [22 * mm, None])]
        return found

    def images(self) -> list[Flowable]:
        found: list[Flowable] = []
        across = int(WIDTH // (IMAGE + 2 * mm))
        for run in self.content.runs:
            for group in run.groups:
                found.append(self.paragraph(f"{run.name}. {group.title}", self.h3))
                lone = len(group.images) == 1
                side = (WIDTH, 60 * mm) if lone else (IMAGE, IMAGE)
                cells = []
                for shown in group.images:
                    said = [self.paragraph(_line(each), self.small) for each in shown.remarks]
                    caption = self.paragraph(shown.caption, self.small)
                    cells.append([self.image(shown.image, *side), caption, *said])
                if lone:
                    found += cells[0]
                else:
                    rows = [cells[k : k + across] for k in range(0, len(cells), across)]
                    rows[-1] += [[]] * (across - len(rows[-1])) if len(rows) > 1 else []
                    found.append(_grid(rows, [WIDTH / across] * len(rows[0])))
                if group.command:
                    found.append(self.paragraph(group.command, self.code))
        return found

    def said(self) -> list[Flowable]:
        found: list[Flowable] = []
        for run in self.content.runs:
            if run.said:
                found.append(self.paragraph(run.name, self.h3))
            for remark in run.said:
                who = f"{shown_name(remark.by)}, " if self.content.parts.names and remark.by else ""
                when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(remark.time))
                head = f"{about(remark)}: {remark.kind}, {who}{when}"
                found.append(self.paragraph(head + (", edited" * remark.edited), self.small))
                if remark.kind != Kind.NOTE:
                    found += [self.paragraph(remark.text, self.body)] if remark.text else []
                    continue
                for tag, text in blocks(LONG_WORD.sub(r"\1 ", remark.text)):
                    text = self.drawable(text.replace("<code>", "").replace("</code>", ""))
                    if tag == "pre":
                        text = text.replace("\n", "<br/>")
                    bullet = "•" if tag == "li" else None
                    text = f"<b>{text}</b>" if tag == "h" else text
                    style = self.code if tag == "pre" else self.body
                    found.append(Paragraph(text, style, bulletText=bullet))
        return found

    def votes(self) -> list[Flowable]:
        found: list[Flowable] = []
        for ballot in self.content.ballots:
            rows = []
            for name, share in ballot.shares.items():
                strength = ballot.strengths.by_name[name]
                rows.append(
                    [
                        name,
                        f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})",
                        f"{share.n:,}",
                        f"{strength.value:.2f} ({strength.low:.2f} to {strength.high:.2f})",
                    ]
                )
            head = ["Name", "Chosen where shown", "Votes", "Bradley–Terry strength"]
            found += [
                self.paragraph(ballot.review, self.h3),
                self.paragraph(ballot_sentence(ballot), self.body),
                self.table(head, rows, 0.34),
            ]
        return found

    def again(self) -> list[Flowable]:
        found: list[Flowable] = []
        for run in self.content.runs:
            found.append(self.paragraph(run.name, self.h3))
            if run.command:
                found.append(self.paragraph(run.command, self.code))
            for change in run.seen.changes[:50]:
                text = cut(json.dumps(change.settings), 300)
                found.append(self.paragraph(f"From step {change.step:,}: {text}", self.body))
            if run.environment:
                rows = [list(pair) for pair in run.environment.items()]
                found.append(self.table(["Environment", ""], rows, 0.22))
        return found

    def settings(self) -> list[Flowable]:
        found: list[Flowable] = []
        for run in self.content.runs:
            text = "; ".join(f"{name} = {value or '–'}" for name, value in run.settings.items())
            if text:
                found += [self.paragraph(run.name, self.h3), self.paragraph(text, self.small)]
        return found

    def notes(self) -> list[Flowable]:
        return [self.paragraph(note, self.body) for note in self.content.every_note()]

    def footer(self, canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont(self.regular, 7)
        canvas.setFillColor(GREY)
        canvas.drawString(MARGIN, 9 * mm, self.drawable(cut(self.content.title, 80)))
        canvas.drawRightString(A4[0] - MARGIN, 9 * mm, str(document.page))


def _grid(rows: list[list[Any]], widths: list[float | None]) -> Table:
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    return Table(rows, colWidths=widths, hAlign="LEFT", style=style)


def _line(remark: Remark) -> str:
    """A remark about an image beside it."""
    return "★" if remark.kind == Kind.STAR else cut(remark.text, 120)


@functools.cache
def placeholder() -> bytes:
    """The smallest JPEG, in the place of an image whose bytes do not matter."""
    buffer = io.BytesIO()
    PillowImage.new("L", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()
