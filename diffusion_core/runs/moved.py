"""Images of a run that lie elsewhere than at its start, or were touched: their content decides."""

from __future__ import annotations

from diffusion_core.data.errors import DataError
from diffusion_core.data.store import ImageStore, absolute, build_store, same_images
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.text import shown

INSTEAD = "start a new run on them from its weights (--init-from)"


def check_images(
    data: str, store: ImageStore, fingerprint: str, content: str, labelled: bool
) -> None:
    """Raises ConfigError where a store does not hold the images of a run, which had these.

    `labelled`: whether the run learns their classes.
    """
    same = same_images(store, fingerprint, content, labelled)
    if same is None:
        raise ConfigError(
            f"Whether the images of {shown(data)} are those that this run has trained on cannot "
            f"be told: a file of them has another time or name, the run is of an earlier version, "
            f"and its decoded images are no longer in the cache. Restore the images as they were, "
            f"or {INSTEAD}."
        )
    if not same:
        raise ConfigError(
            f"The images of {shown(data)} are not those that this run has trained on: pixels, "
            f"classes or order differ. Change data to where those are, or {INSTEAD}."
        )


def find_moved(run: RunSnapshot, data: str) -> tuple[str, str]:
    """The data set `data`, absolute, if it holds the images of a run that has begun; its content.

    They are decoded if they are not in the cache. Raises ConfigError.
    """
    if run.config is None or run.details is None or not run.details.data_fingerprint:
        raise ConfigError(f"{run.name} has no record of its images; its data cannot change.")
    data = absolute(data)
    try:
        store = build_store(data, run.config.image_size, run.config.channels, run.config.resize)
    except DataError as error:
        raise ConfigError(str(error)) from error
    details = run.details
    check_images(data, store, details.data_fingerprint, details.data_content, bool(details.classes))
    return data, store.content
