"""The browser components as one script each."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from dashboard.components import assemble

FOLDER = Path(assemble.__file__).parent
COMPONENTS = sorted(
    script
    for script in FOLDER.glob("*/*.js")
    if "export default" in script.read_text(encoding="utf-8")
)
DECLARED = re.compile(r"^(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


def assembled(script: Path) -> str:
    return "".join(
        assemble.inline(part.read_text(encoding="utf-8")) for part in assemble.scripts(script)
    )


def test_every_component_has_one_script_of_its_name() -> None:
    shown = [path for path in FOLDER.glob("*/*.py") if "component(Path" in path.read_text("utf-8")]
    assert sorted(path.with_suffix(".js") for path in shown) == COMPONENTS
    assert all(script.stem == script.parent.name for script in COMPONENTS)


@pytest.mark.parametrize("script", COMPONENTS, ids=lambda script: script.stem)
def test_a_component_is_one_script_without_imports(script: Path) -> None:
    text = assembled(script)
    assert not re.search(r"^import\b", text, re.MULTILINE)
    assert re.findall(r"^export.*", text, re.MULTILINE) == [
        line for line in text.splitlines() if line.startswith("export default function (")
    ]
    # The browser refuses a script that declares a name twice; the linter sees one file at a time.
    assert [name for name, count in Counter(DECLARED.findall(text)).items() if count > 1] == []


def test_what_a_script_imports_comes_first_and_once(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("export const a = 1;\n")
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\nexport function b() {}\n')
    script = tmp_path / "c.js"
    script.write_text(
        'import { b } from "./b.js";\nimport {\n  a,\n} from "./a.js";\nexport default a;\n'
    )
    assert assembled(script) == "const a = 1;\nfunction b() {}\nexport default a;\n"
