"""What is found in a data set is what NumPy finds in the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_core.data import analysis
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import build_store, fingerprint_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def paint(path: Path, seed: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(20, 236, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    image.save(path)
    return np.asarray(image)


def examine(spec: str, limit: int = 500, resize: str = "squash") -> analysis.Examined:
    return analysis.collect(analysis.examine(spec, limit, resize))


def test_statistics_are_those_of_numpy_over_the_store(tmp_path: Path, cache: Path) -> None:
    for k in range(7):
        paint(tmp_path / "set" / f"{k % 2}" / f"{k}.png", k, (40 + k, 30))
    spec = f"folder:{tmp_path / 'set'}"
    found = examine(spec)
    images = build_store(spec, analysis.SIZE, cache_dir=cache, workers=0).images
    pixels = images.transpose(0, 2, 3, 1).astype(float)
    assert np.allclose(found.mean, pixels.mean(0)) and np.allclose(found.std, pixels.std(0))
    assert np.allclose(found.channel_mean, pixels.mean((0, 1, 2)))
    assert np.allclose(found.channel_std, pixels.std((0, 1, 2)))
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.sizes.tolist() == [[40 + k, 30] for k in (0, 2, 4, 6, 1, 3, 5)]
    assert not np.array_equal(found.mean, examine(spec, resize="pad").mean)


def test_similar_pairs_are_those_whose_thumbnails_correlate(tmp_path: Path) -> None:
    first = paint(tmp_path / "set" / "0.png", 0)
    for k in range(1, 30):
        paint(tmp_path / "set" / f"{k}.png", k)
    brighter = (first * 0.8 + 30).astype(np.uint8)
    Image.fromarray(brighter).save(tmp_path / "set" / "x-brighter.png")
    Image.fromarray(first).save(tmp_path / "set" / "y-copy.png")
    found = examine(f"folder:{tmp_path / 'set'}")
    assert found.copies.tolist() == [[0, 31]]
    assert found.pairs[:1].tolist() == [[0, 30]]  # the copy is not compared again
    small = [each.reshape(32, 2, 32, 2, 3).mean((1, 3)).ravel() for each in (first, brighter)]
    assert found.correlations[0] == pytest.approx(np.corrcoef(small)[0, 1], abs=1e-5)
    assert found.pairs_above(0.98) == found.pairs_above(0.9) == 1


def test_pairs_across_blocks_are_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnails = np.random.default_rng(0).standard_normal((23, 50)).astype(np.float32)
    thumbnails[20] = thumbnails[3] + 0.1 * thumbnails[5]
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    monkeypatch.setattr(analysis, "BLOCK", 4)
    steps = analysis._similar(thumbnails, 0)
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    pairs, values, alike = end.value.value
    assert pairs.tolist() == [[3, 20]] and alike.sum() == 1
    assert values[0] == pytest.approx(np.corrcoef(thumbnails)[3, 20], abs=1e-5)


def test_one_image_one_colour_grey_and_broken_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("L", (3000, 2), 7).save(folder / "a.png")
    one = examine(f"folder:{folder}")
    assert one.sizes.tolist() == [[3000, 2]] and one.mean.min() == one.mean.max() == 7
    assert not len(one.pairs) and not len(one.copies)
    Image.new("RGB", (5, 5), (9, 9, 9)).save(folder / "b.png")  # as flat, but not a copy
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    three = examine(f"folder:{folder}")
    assert three.broken.tolist() == ["c.png"] and three.rows.tolist() == [0, 1]
    assert not len(three.pairs) and not len(three.copies)
    (folder / "a.png").unlink()
    (folder / "b.png").unlink()
    with pytest.raises(DataError, match="None of the 1 images"):
        examine(f"folder:{folder}")


def test_a_large_set_is_sampled_evenly_and_examined_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert analysis.rows_of(100_000, 4).tolist() == [0, 25_000, 50_000, 75_000]
    assert analysis.rows_of(3, 500).tolist() == [0, 1, 2]
    found = examine("digits", 40)
    assert len(found.rows) == 40 and found.rows[-1] > 1700
    monkeypatch.setattr(analysis, "to_size", None)  # whoever examines again fails
    assert np.array_equal(examine("digits", 40).mean, found.mean)
    file = analysis.file_of(fingerprint_of("digits", analysis.SIZE), 40)
    file.write_bytes(file.read_bytes()[:100])
    assert analysis.load(file) is None
