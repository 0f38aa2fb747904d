"""The app's pages in the order of the menu: file, title, icon and summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "pages"


@dataclass(frozen=True)
class PageEntry:
    """One page; `summary` is a sentence for Home. `light`: it is shown without PyTorch."""

    file: str
    title: str
    icon: str
    summary: str
    light: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def url_path(self) -> str:
        return self.title.lower().replace(" ", "-")


HOME = PageEntry("home.py", "Home", ":material/home:", "What this app does.")
SECTIONS: dict[str, list[PageEntry]] = {
    "Understand": [
        PageEntry(
            "lecture.py",
            "Lecture",
            ":material/school:",
            "The lecture's seven steps on these pages, with a question each.",
        ),
        PageEntry(
            "data.py",
            "Data",
            ":material/photo_library:",
            "The images of a data set, their classes, sizes and colours, and how a run reads them.",
        ),
        PageEntry(
            "schedule.py",
            "Schedule",
            ":material/show_chart:",
            "How much noise each of the T steps adds, as curves and numbers.",
            light=True,
        ),
        PageEntry(
            "noising.py",
            "Noising",
            ":material/grain:",
            "Noise any image up to step t and see what is left of it.",
        ),
        PageEntry(
            "embedding.py",
            "Embedding",
            ":material/waves:",
            "How the network is told the timestep.",
            light=True,
        ),
        PageEntry(
            "unet.py",
            "Network",
            ":material/schema:",
            "Inside the U-Net that predicts the noise: shapes, cost, values, skips.",
        ),
        PageEntry(
            "one_step.py",
            "One step",
            ":material/footprint:",
            "What a checkpoint predicts from one noisy image, and where a step leads.",
        ),
        PageEntry(
            "live.py",
            "Live",
            ":material/touch_app:",
            "Move the noise, the class and the seed; a small run in your browser follows.",
        ),
        PageEntry(
            "playground.py",
            "Playground",
            ":material/scatter_plot:",
            "Train a small diffusion model on points of the plane, in your browser.",
        ),
    ],
    "Train and sample": [
        PageEntry(
            "training.py",
            "Training",
            ":material/model_training:",
            "Start a training run, watch its losses and samples, pause, resume or stop it.",
        ),
        PageEntry(
            "sampling.py",
            "Sampling",
            ":material/brush:",
            "Generate images from a checkpoint and watch them form from noise.",
        ),
        PageEntry(
            "review.py",
            "Review",
            ":material/rate_review:",
            "Compare runs, look at their images together, vote and decide.",
        ),
    ],
}


def entry(file: str) -> PageEntry:
    """The page in `pages/<file>`."""
    return next(page for pages in SECTIONS.values() for page in pages if page.file == file)
