"""Browser components made of the scripts and styles that lie beside their Python files."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import streamlit as st
from streamlit.components.v1 import declare_component

# Streamlit takes the script of a component as one text, so that it cannot import files.
IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


@functools.cache
def component(
    file: Path, html: str, isolate_styles: bool = True
) -> st.components.v2.types.ComponentRenderer:
    """The component of the Python file `file`, named like it, from the script and the style of the
    same name beside it. What the script imports comes first, with its styles, which a component
    without isolation goes without.
    """
    modules = scripts(file.with_suffix(".js"))
    styles = (script.with_suffix(".css") for script in modules)
    css = "".join(style.read_text(encoding="utf-8") for style in styles if style.exists())
    return st.components.v2.component(
        file.stem,
        html=html,
        css=css if isolate_styles else None,  # it would change the page
        js="".join(inline(script.read_text(encoding="utf-8")) for script in modules),
        isolate_styles=isolate_styles,
    )


@functools.cache
def folder_address(name: str, folder: Path) -> str:
    """Where this server offers the files of a folder, and of no other, relative to the page.

    The same after a restart of the server.
    """
    return f"component/{declare_component(name, path=folder).name}"


def scripts(script: Path) -> list[Path]:
    """A script and all that it imports, each once and after what it imports itself."""
    names = IMPORT.findall(script.read_text(encoding="utf-8"))
    imported = [each for name in names for each in scripts((script.parent / name).resolve())]
    return list(dict.fromkeys([*imported, script.resolve()]))


def inline(text: str) -> str:
    """A script without its imports and exports, as a part of a longer one."""
    return EXPORT.sub("", IMPORT.sub("", text))
