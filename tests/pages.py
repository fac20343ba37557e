"""The Markdown pages, and what of them is prose, a command, a formula."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {".venv", "runs", "node_modules", ".pytest_cache"}
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.md")
               if not NOT_OURS & set(path.relative_to(ROOT).parts))
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose_of(page: str) -> str:
    """The page without its fenced code and formulas."""
    return FENCE.sub("", text_of(page))


def fenced_formulas_of(page: str) -> list[str]:
    """The TeX that stands in fences of its own, which Markdown leaves as it is."""
    return re.findall(r"^```math\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def formulas_of(page: str) -> list[tuple[str, bool]]:
    """(TeX, whether it is set on a line of its own) of each formula."""
    prose = re.sub(r"^ {4}.*$|`[^`\n]*`", "", prose_of(page), flags=re.MULTILINE)
    in_tables = re.compile(r"^\|.*\|$", re.MULTILINE)
    prose = in_tables.sub(lambda row: row[0].replace(r"\|", "|"), prose)       # there a bar would end the cell
    displayed = fenced_formulas_of(page) + re.findall(r"\$\$(.+?)\$\$", prose, re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.+?\$\$", "", prose, flags=re.DOTALL))
    return [(tex, True) for tex in displayed] + [(tex, False) for tex in inline]
