"""Noise by image: the same in every batch, and where it is drawn ahead in a thread."""

from __future__ import annotations

import threading

import torch

from diffusion_core.process.noise import ahead, image_noise


def test_noise_that_is_drawn_ahead_is_the_same() -> None:
    plain, source = (image_noise(7, 3, (3, 8, 8)) for _ in range(2))
    threads = []

    def draw() -> torch.Tensor:
        threads.append(threading.get_ident())
        return source()

    early = ahead(draw)
    for _ in range(6):
        assert torch.equal(early(), plain())
    # Of the first alone, which is all that many samplers need, nothing is drawn in vain.
    here = threading.get_ident()
    assert [thread == here for thread in threads[:3]] == [True, True, False]


def test_no_images_need_no_noise() -> None:
    assert image_noise(7, 0, (3, 8, 8))().shape == (0, 3, 8, 8)
