"""A folder of images, read as torchvision's `ImageFolder` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffusion_core.data.decode import open_image
from diffusion_core.data.errors import DataError
from diffusion_core.data.source import SourceKind

SIZE = 64  # pixels
# Those of torchvision, listed so that decoding processes need not import it.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def find_images(path: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """Find the image files with their labels, in a fixed order, and the class names.

    `PATH/class/x.jpg`: each folder is a class, with all that lies deeper in it.
    `PATH/train/class/x.jpg`, as in Stanford Cars: the parts are concatenated, as in the lecture,
    and classes of the same name are one. `PATH/x.jpg`: a single class. Raises DataError.
    """
    from torchvision.datasets import ImageFolder

    if not path.is_dir():
        raise DataError(f"There is no folder {path}; give the folder that holds the images.")
    try:
        folders = sorted(child for child in path.iterdir() if child.is_dir())
        splits = [folder for folder in folders if any(c.is_dir() for c in folder.iterdir())]
    except OSError as error:
        raise DataError(f"The folder {path} cannot be read: {error.strerror}.") from error
    if splits and len(splits) == len(folders):
        roots = splits
    elif any(has_image(folder) for folder in folders):
        roots = [path]
    else:
        files = sorted(file for file in path.iterdir() if is_image(file))
        if not files:
            raise DataError(
                f"There are no images in {path}. Put PNG or JPEG files into it, or into one "
                f"folder for each class."
            )
        return [(file, 0) for file in files], (path.name,)
    found: list[tuple[Path, str]] = []
    for root in roots:
        try:
            part = ImageFolder(str(root), allow_empty=True)
        except (FileNotFoundError, OSError) as error:
            raise DataError(f"The folder {root} cannot be read: {error}.") from error
        found += [(Path(file), part.classes[label]) for file, label in part.samples]
    if not found:
        raise DataError(f"There are no images in {path}. Put PNG or JPEG files into its folders.")
    classes = tuple(sorted({name for _, name in found}))
    number = {name: k for k, name in enumerate(classes)}
    return [(file, number[name]) for file, name in found], classes


def is_image(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in EXTENSIONS


def has_image(folder: Path) -> bool:
    return any(is_image(file) for file in folder.rglob("*"))


@dataclass(frozen=True)
class FolderSource:
    """The image files of a folder."""

    files: tuple[tuple[Path, int], ...]  # with their labels
    classes: tuple[str, ...]
    identity: str
    size: int = SIZE
    parallel: bool = True

    @property
    def count(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.files[index]
        return open_image(file), label

    def name(self, index: int) -> str:
        return self.files[index][0].name


def open_folder(detail: str) -> FolderSource:
    path = Path(detail).expanduser()
    files, classes = find_images(path)
    lines = [f"{file.relative_to(path)} {_size_and_time(file)}" for file, _ in files]
    return FolderSource(tuple(files), classes, "\n".join(lines))


def _size_and_time(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # a broken link, or removed just now: skipped and named when it is read
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


SOURCE = SourceKind(
    name="folder",
    help="images of your own, for example Stanford Cars.",
    usage=("folder:PATH",),
    open=open_folder,
    size=SIZE,
    detail="Folder on this machine",
    placeholder="/data/stanford_cars",
    missing="Give the folder that holds the images.",
    is_path=True,
)
