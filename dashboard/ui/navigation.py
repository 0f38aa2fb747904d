"""The app's pages: their files, titles, icons and what each is for, in the order of the menu."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "pages"


@dataclass(frozen=True)
class PageEntry:
    """One page; `summary` says in a sentence what a visitor does there."""

    file: str
    title: str
    icon: str
    summary: str

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def url_path(self) -> str:
        return self.title.lower()


HOME = PageEntry("home.py", "Home", ":material/home:", "What this is.")
SECTIONS: dict[str, list[PageEntry]] = {
    "Understand": [
        PageEntry(
            "schedule.py",
            "Schedule",
            ":material/show_chart:",
            "How much noise each of the T steps adds, as curves and as numbers.",
        ),
        PageEntry(
            "noising.py",
            "Noising",
            ":material/grain:",
            "Take an image, or your own, to any step t and see what is left of it.",
        ),
        PageEntry(
            "embedding.py",
            "Embedding",
            ":material/waves:",
            "How the network is told which step it is looking at.",
        ),
        PageEntry(
            "unet.py",
            "Network",
            ":material/schema:",
            "The shapes, parameters and cost of the U-Net that predicts the noise.",
        ),
    ],
    "Train and draw": [
        PageEntry(
            "training.py",
            "Training",
            ":material/model_training:",
            "Start a training, watch its losses and samples, pause, resume or stop it.",
        ),
        PageEntry(
            "sampling.py",
            "Sampling",
            ":material/brush:",
            "Draw new images from the latest checkpoint and see them form out of noise.",
        ),
    ],
}


def entry(file: str) -> PageEntry:
    """The page in `pages/<file>`."""
    return next(page for pages in SECTIONS.values() for page in pages if page.file == file)
