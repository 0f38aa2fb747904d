"""Reports as files, and how large they will be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion_core.files import check_folder, replacing
from diffusion_core.review.report import page
from diffusion_core.review.report.content import Content, Parts, ReportError, gather
from diffusion_core.review.report.images import estimate
from diffusion_core.runs.run import Run

FORMATS = (".html", ".pdf")
RUN_REPORT = "report.html"  # in a run folder
BASE64 = 4 / 3  # bytes of text for one


def make_report(
    runs: Sequence[Run], format: str, parts: Parts | None = None, title: str = ""
) -> bytes:
    """A report of 1 to 8 runs as one file; `format`: of FORMATS. Raises ReportError."""
    content = gather(runs, parts or Parts(), title)
    if _is_paper(format):
        from diffusion_core.review.report import paper

        return paper.render(content)
    return page.render(content)


def expected_size(runs: Sequence[Run], format: str, parts: Parts | None = None) -> int:
    """About how many bytes that will have: exact but for images that are made smaller.

    Raises ReportError.
    """
    content = gather(runs, parts or Parts())
    if _is_paper(format):
        return _expected_paper(content)
    images = sum(estimate(each, paper=False) for each in page.images(content))
    return len(page.render(content, lambda image: "")) + round(BASE64 * images)


def _expected_paper(content: Content) -> int:
    from diffusion_core.review.report import paper

    groups = paper.images(content)
    small = len(paper.placeholder()) * sum(map(len, groups))
    images = sum(estimate(each, paper=True) for each in groups)
    return len(paper.render(content, lambda image: paper.placeholder())) - small + round(images)


def _is_paper(format: str) -> bool:
    """Raises ReportError for a format that is not known."""
    if format not in FORMATS:
        raise ReportError(f"A report is {' or '.join(FORMATS)}, not {format or 'without an end'}.")
    return format == ".pdf"


def write_report(
    runs: Sequence[Run], file: Path, parts: Parts | None = None, title: str = ""
) -> int:
    """Make a report and write it at once; returns its bytes. Raises ReportError, OSError."""
    check_folder(file.parent)
    data = make_report(runs, file.suffix.lower(), parts, title)
    with replacing(file) as opened:
        opened.write(data)
    return len(data)


def write_run_report(run: Path) -> None:
    """Refresh the report in a run folder. Raises ReportError, OSError."""
    write_report([Run(run)], run / RUN_REPORT)
