"""docs/FILES.md names the subject of every module: its docstring's start. `python tests/test_docs.py` rewrites it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "adapters", "kernels", "metering", "loadtest")
PAGE = ROOT / "docs" / "FILES.md"
HEADER = "# Every file and its subject\n\nWritten by `python tests/test_docs.py` from the modules' docstrings.\n"


def subject(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text())) or "").split("\n\n")[0].replace("\n", " ").strip()


def modules() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    own = [path for path in found if path.name != "__init__.py" and "node_modules" not in path.parts]
    return sorted(own, key=lambda path: (path.parent, path.name))


def page() -> str:
    """The whole page: one section per folder, one line per module."""
    lines, folder = [HEADER], None
    for path in modules():
        if path.parent != folder:
            folder = path.parent
            lines.append(f"\n## {folder.relative_to(ROOT).as_posix()}/\n")
        lines.append(f"- `{path.name}`: {subject(path)}")
    return "\n".join(lines) + "\n"


def test_every_module_says_what_it_is_about() -> None:
    """No module without a docstring."""
    assert [path for path in modules() if not subject(path)] == []


def test_the_list_of_files_is_true() -> None:
    """docs/FILES.md is what the docstrings say now."""
    assert PAGE.read_text() == page(), "run: python tests/test_docs.py"


if __name__ == "__main__":
    PAGE.write_text(page())
