"""The metrics of generated images: one function and one record in METRICS each.

The evaluation, the result files, the command line and the Quality tab ask METRICS for all they
need. The mathematics is in `image_metrics.py`, `sliced.py`, `fidelity.py` and `likelihood.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass

import numpy as np

from diffusion_core.evaluation import image_metrics
from diffusion_core.evaluation.fidelity import fidelity_estimates
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.sliced import sliced_wasserstein_estimates
from diffusion_core.evaluation.sliced_features import sliced_feature_estimate

# What is known of a set of n images, by name; a view that cannot be had is missing:
#   pixels         uint8 (n, H, W, C)
#   labels         int (n,), the classes that the images should be of
#   features       float32 (n, d) of the data set's classifier, if it has one, see `features.py`
#   probabilities  float32 (n, classes) of the same
#   general        float32 (n, d) of the general network, see `features.py`
#   neighbourhood  float32 (n, d), `features` if there are any, otherwise `general`
#   inception      float32 (n, 2048), see `fidelity.py`
#   dinov2         float32 (n, width), see `dinov2.py`
#   distance       float64 (n,) to the nearest training image, see `image_metrics.nearest`
Views = dict[str, np.ndarray]
Estimates = dict[str, Estimate]  # by the names of METRICS


@dataclass(frozen=True)
class Comparison:
    """Two sets of images, of which the first is real."""

    real: Views
    fake: Views
    unseen_distance: np.ndarray  # float64 (m,), of held-out images to the nearest training image
    seed: int = 0


Measure = Callable[[Comparison], Mapping[str, Estimate]]


@dataclass(frozen=True)
class Metric:
    """One number that says how good generated images are.

    `measure` may return several metrics, which then share it. None: not measured by comparing
    images.
    """

    name: str  # in files and results
    title: str
    better: str  # lower, higher, or floor: nearest to that of held-out images
    help: str  # sentences
    measure: Measure | None
    needs: frozenset[str] = frozenset({"pixels"})  # views of the generated images
    percent: bool = False  # a share in [0, 1], shown in %

    @property
    def direction(self) -> str:
        """For example "lower is better"."""
        return "near 5 % is right" if self.better == "floor" else f"{self.better} is better"

    def format(self, value: float) -> str:
        """A value as text: "12.3", or "87.1 %" for a share."""
        value += 0.0  # no negative zero
        if self.percent:
            return f"{100 * value:.1f} %"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")

    def format_estimate(self, estimate: Estimate) -> str:
        """A value with its 95 % interval, if it has one: "12.3 (11.8 to 12.9)"."""
        if estimate.low == estimate.high:
            return self.format(estimate.value)
        low, high = self.format(estimate.low), self.format(estimate.high)
        return f"{self.format(estimate.value)} ({low.removesuffix(' %')} to {high})"


def measurable(views: Collection[str]) -> list[str]:
    """The metrics that a set with these views can be compared by."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.measure is not None and metric.needs <= set(views)
    ]


def compare(comparison: Comparison, done: int = 0) -> Generator[int, None, Estimates]:
    """Measure all that is measurable; yields `done` after each part."""
    names = measurable(comparison.fake)
    found: Estimates = {}
    for measure in dict.fromkeys(METRICS[name].measure for name in names):
        assert measure is not None
        found |= measure(comparison)
        yield done
    return {name: found[name] for name in names}


# ------------------------------------------------------------------------------ the functions


def _frechet(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["features"], sets.fake["features"]
    return {"frechet": image_metrics.frechet_estimate(real, fake, sets.seed)}


def _frechet_general(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["general"], sets.fake["general"]
    return {"frechet_general": image_metrics.frechet_estimate(real, fake, sets.seed)}


def _sliced_general(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["general"], sets.fake["general"]
    return {"sliced_general": sliced_feature_estimate(real, fake, sets.seed)}


def _manifold(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["neighbourhood"], sets.fake["neighbourhood"]
    return image_metrics.manifold_estimates(real, fake, sets.seed)


def _classes(sets: Comparison) -> Mapping[str, Estimate]:
    probabilities, labels = sets.fake["probabilities"], sets.fake.get("labels")
    return image_metrics.class_scores_estimates(probabilities, labels, sets.seed)


def _sliced_wasserstein(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["pixels"], sets.fake["pixels"]
    return {"sliced_wasserstein": sliced_wasserstein_estimates(real, fake, sets.seed)["mean"]}


def _copies(sets: Comparison) -> Mapping[str, Estimate]:
    fake, unseen = sets.fake["distance"], sets.unseen_distance
    return {"copies": image_metrics.copies_estimate(fake, unseen, sets.seed)}


def _inception(sets: Comparison) -> Mapping[str, Estimate]:
    return fidelity_estimates(sets.real["inception"], sets.fake["inception"], sets.seed)


def _dinov2(sets: Comparison) -> Mapping[str, Estimate]:
    real, fake = sets.real["dinov2"], sets.fake["dinov2"]
    return {"fd_dinov2": image_metrics.frechet_estimate(real, fake, sets.seed)}


# ------------------------------------------------------------------------------ the records

FEATURES = frozenset({"features"})
GENERAL = frozenset({"general"})
NEIGHBOURHOOD = frozenset({"neighbourhood"})
CLASSIFIER = frozenset({"features", "probabilities"})
BITS = Metric(
    name="bits_per_dim",
    title="Bits per dimension",
    better="lower",
    help="Bits per pixel and channel to encode an unseen image with the network (an upper bound). "
    "A property of the checkpoint, not of the sampler.",
    measure=None,  # `evaluator.measure_bits`
)
COPIES = Metric(
    name="copies",
    title="Near copies",
    better="floor",
    help="Share of generated images that are nearer to a training image than 95 % of unseen real "
    "images are. About 5 % means that nothing is copied; much more means that the network repeats "
    "its training images.",
    measure=_copies,
    needs=frozenset({"distance"}),
    percent=True,
)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="frechet",
            title="Fréchet distance",
            better="lower",
            help="Distance between generated and real images in the features of a small "
            "classifier, by their means and covariances. FID is the same with Inception features.",
            measure=_frechet,
            needs=FEATURES,
        ),
        Metric(
            name="frechet_general",
            title="Fréchet (general)",
            better="lower",
            help="Fréchet distance in the features of a general network, which was trained without "
            "labels on several data sets and serves all of them.",
            measure=_frechet_general,
            needs=GENERAL,
        ),
        Metric(
            name="sliced_general",
            title="Sliced (general)",
            better="lower",
            help="Sliced Wasserstein distance in the features of the general network. Needs fewer "
            "images than the Fréchet distance.",
            measure=_sliced_general,
            needs=GENERAL,
        ),
        Metric(
            name="precision",
            title="Precision",
            better="higher",
            help="Share of generated images that look like some real one.",
            measure=_manifold,
            needs=NEIGHBOURHOOD,
            percent=True,
        ),
        Metric(
            name="recall",
            title="Recall",
            better="higher",
            help="Share of real images that look like some generated one. Low if kinds of images "
            "are missing.",
            measure=_manifold,
            needs=NEIGHBOURHOOD,
            percent=True,
        ),
        Metric(
            name="density",
            title="Density",
            better="higher",
            help="How densely generated images lie where real ones are. About 1 for real images.",
            measure=_manifold,
            needs=NEIGHBOURHOOD,
        ),
        Metric(
            name="coverage",
            title="Coverage",
            better="higher",
            help="Share of real images with a generated one in their neighbourhood.",
            measure=_manifold,
            needs=NEIGHBOURHOOD,
            percent=True,
        ),
        Metric(
            name="accuracy",
            title="Class accuracy",
            better="higher",
            help="How often the classifier recognises the class that an image was generated for.",
            measure=_classes,
            needs=frozenset({"probabilities", "labels"}),
            percent=True,
        ),
        Metric(
            name="balance",
            title="Class balance",
            better="higher",
            help="How evenly the classes are generated: 1 if all are equally frequent.",
            measure=_classes,
            needs=frozenset({"probabilities"}),
        ),
        Metric(
            name="sliced_wasserstein",
            title="Sliced Wasserstein",
            better="lower",
            help="How much small patches of generated and real images differ, at several sizes of "
            "detail. Needs no classifier.",
            measure=_sliced_wasserstein,
        ),
        COPIES,
        Metric(
            name="fid",
            title="FID",
            better="lower",
            help="Fréchet distance in Inception features, as in papers.",
            measure=_inception,
            needs=frozenset({"inception"}),
        ),
        Metric(
            name="kid",
            title="KID × 1,000",
            better="lower",
            help="Like FID, but fair to small numbers of images.",
            measure=_inception,
            needs=frozenset({"inception"}),
        ),
        Metric(
            name="fd_dinov2",
            title="FD-DINOv2",
            better="lower",
            help="Fréchet distance in the features of DINOv2, as in papers if its weights are "
            "those of size L.",
            measure=_dinov2,
            needs=frozenset({"dinov2"}),
        ),
        BITS,
    )
}
