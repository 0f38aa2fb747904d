"""`data`: make a data set of a zip file of images; list and delete them."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_core.cli.options import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("import", help="make a data set of a zip file of images")
    add.add_argument("file", type=Path, help="the zip file; its folders become classes")
    add.add_argument("--name", help="name of the data set (default: that of the file)")
    add.set_defaults(do=import_data)
    listing = actions.add_parser("list", help="list the data sets that were imported")
    listing.set_defaults(do=list_data)
    remove = actions.add_parser("delete", help="delete a data set that was imported")
    remove.add_argument("name", help="name of the data set")
    remove.set_defaults(do=delete_data)


def import_data(arguments: argparse.Namespace) -> int:
    from diffusion_core.data import store, uploaded
    from diffusion_core.data.found import sentence

    made = uploaded.take(arguments.file, arguments.name or arguments.file.stem)
    spec = f"uploaded:{made.path.name}"
    found = store.look(spec, float("inf"))
    assert found is not None
    print(f"{sentence(found)} Train on them with --data {spec}")
    return DONE


def list_data(_: argparse.Namespace) -> int:
    from diffusion_core.data import store
    from diffusion_core.data.sources import uploaded

    for name in uploaded.names():
        print(f"uploaded:{name}  {store.count(f'uploaded:{name}'):,} images")
    return DONE


def delete_data(arguments: argparse.Namespace) -> int:
    from diffusion_core.data import uploaded

    uploaded.delete(arguments.name)
    print(f"{arguments.name} is deleted.")
    return DONE
