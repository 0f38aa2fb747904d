"""A folder of images, read the way torchvision's `ImageFolder` reads it."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.data.errors import DataError

# As torchvision has them; listed here so that decoding processes need not import it.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def find_images(path: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """The image files with their class numbers, in a fixed order, and the classes' names.

    `PATH/class/x.jpg` is a class for each folder (anything deeper belongs to it). Where the
    folders hold folders of classes themselves (`PATH/train/class/x.jpg`, as in Stanford Cars),
    all are put together, classes with the same name as one: the lecture's concatenation.
    `PATH/x.jpg` alone is a single class. Raises DataError.
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
