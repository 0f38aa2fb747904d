"""Images, folders of them, and decoded images."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from diffusion_core.data.decode import FORMATS, ImageError, open_image, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import REASONS, found, sentence
from diffusion_core.data.sources.folder import FolderSource, open_folder
from diffusion_core.data.sources.layout import arrange
from diffusion_core.data.store import build_store
from tests import image_files
from tests.faults.odd_inputs import damaged, head_damaged, json_files, some_of
from tests.faults.parsers.table import PARSERS, Parser, written


def images_of(name: str) -> list[bytes]:
    """Small files of a format."""
    grey16 = Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300)
    floats = Image.fromarray(np.linspace(-1, 1, 200, dtype=np.float32).reshape(10, 20))
    half = [image_files.halves(name.upper())]
    if name == "PNG":
        return [*half, image_files.png_16_bit(), image_files.halves("PNG", "P")]
    if name == "JPEG":
        return [*half, image_files.halves("JPEG", "CMYK"), image_files.halves("JPEG", "L")]
    if name == "GIF":
        return [*half, image_files.animated_gif()]
    if name == "TIFF":
        squeezed = [
            image_files.halves("TIFF", compression=how)
            for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ]
        return [*squeezed, image_files.encode(grey16, "TIFF"), image_files.encode(floats, "TIFF")]
    if name == "PPM":
        return [*half, image_files.encode(grey16, "PPM"), image_files.encode(floats, "PPM")]
    return half


def read_image(data: bytes, folder: Path) -> Image.Image:
    image = open_image(data if len(data) % 2 else written(folder, "image", data))
    assert image.mode == "RGB"
    assert to_size(image, 16).shape == (16, 16, 3)
    return image


def image_again(image: Image.Image, folder: Path) -> Any:
    same = image.width * image.height > 10**5 or (
        open_image(image_files.encode(image, "PNG")).tobytes() == image.tobytes()
    )
    return same and image


for each in FORMATS:
    PARSERS[f"{each} image"] = Parser(
        damaged(*images_of(each)), read_image, ImageError, image_again, few=8, many=2000
    )


FOLDERS = (
    *("cat", "dog", "train", "test", "Testing", "cars_train", "images", "unlabelled", "val2017"),
    *(".git", "__MACOSX", "_", "-", " ", "1", "caf\u0301e", "café", "\udce9", "a\nb", "x" * 200),
    *("[a](b)", "\u202eabc", "train_station", "TrainSet", "<b>", "{0}"),
)
FILES = (
    *("0.jpg", "1.PNG", "2.gif", "3.tif", "a.heic", "x.txt", ".jpg", "no", "\udcff.png", "a\n.png"),
    "1" * 200 + ".webp",
)
CONTENTS = (
    *(image_files.halves("PNG"), image_files.truncated_jpeg(), image_files.TEXT, b""),
    *("link", "up", "loop", "hard", "pipe", "folder", "nowhere"),
)
trees = st.lists(
    st.tuples(some_of(FOLDERS, 3), st.sampled_from(FILES), st.sampled_from(CONTENTS)), max_size=8
)


def plant(tree: list[tuple[list[str], str, Any]], root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folders, name, content in tree:
        with contextlib.suppress(OSError):  # a file is where a folder should be
            path = root.joinpath(*folders, name)
            if os.path.lexists(path):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content == "hard":
                os.link(next(each for each in root.rglob("*") if each.is_file()), path)
            elif content == "pipe":
                os.mkfifo(path)
            elif content == "folder":
                path.mkdir()
            else:
                to = {"link": "0.jpg", "up": "..", "loop": name, "nowhere": "none"}[content]
                path.symlink_to(to)


def read_tree(tree: list[tuple[list[str], str, Any]], folder: Path) -> FolderSource:
    root = folder / "tree"
    with contextlib.suppress(StopIteration):
        plant(tree, root)
    source = open_folder(str(root))
    said = sentence(found(source.count, source.classes, source.left_out))
    assert said.isprintable() and len(said) < 4000
    assert 0 < source.count <= len(tree) * 3
    assert {label for _, label in source.files} == set(range(len(source.classes)))
    assert {why for _, why in source.left_out} <= REASONS.keys()
    for k in range(source.count):
        assert source.name(k).isprintable()
        with contextlib.suppress(ImageError):
            assert source.read(k)[0].mode == "RGB"
    return source


PARSERS["folder of images"] = Parser(
    trees,
    read_tree,
    DataError,
    lambda source, at: open_folder(str(source.path)),
    longest=1000,
    few=8,
    many=1500,
)


@functools.cache
def decoded(folder: Path) -> Path:
    """A folder of images, decoded into a cache."""
    plant([(["cat"], "0.png", CONTENTS[0]), (["dog"], "1.png", CONTENTS[0])], folder / "images")
    return build_store(
        f"folder:{folder / 'images'}", 16, cache_dir=folder / "whole", workers=0
    ).folder


def read_store(change: tuple[str, Any], folder: Path) -> Any:
    name, edit = change
    whole = decoded(folder)
    place = folder / "cache" / whole.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    written(place, name, edit)
    store = build_store(f"folder:{folder / 'images'}", 16, cache_dir=place.parent, workers=0)
    assert store.read(np.array([0, 1])).shape == (2, 3, 16, 16) == store.images.shape
    assert store.labels.shape == (2,) and set(store.labels) <= {0, 1}
    assert len(store.content) == 64
    store.file.close()
    return store.classes


def store_files() -> st.SearchStrategy[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        whole = decoded.__wrapped__(Path(folder))
        meta = json.loads((whole / "meta.json").read_text())
        return st.one_of(
            st.tuples(st.just("meta.json"), json_files(meta)),
            *(
                st.tuples(st.just(name), head_damaged((whole / name).read_bytes(), 140))
                for name in ("labels.npy", "images.npy")
            ),
        )


PARSERS["decoded images"] = Parser(st.deferred(store_files), read_store, DataError, few=6, many=800)


def read_paths(paths: list[list[str]], _: Path) -> None:
    parts = [tuple(each) for each in paths if each]
    classes, left_out = arrange(parts, "root")
    assert classes.keys().isdisjoint(left_out)
    assert sorted([*classes, *left_out]) == list(range(len(parts)))
    assert set(left_out.values()) <= REASONS.keys()
    assert all(classes.values())


PARSERS["paths of images"] = Parser(
    st.lists(
        st.lists(st.one_of(st.sampled_from(FOLDERS), st.text(min_size=1, max_size=8)), max_size=5),
        max_size=12,
    ),
    read_paths,
    many=6000,
)
