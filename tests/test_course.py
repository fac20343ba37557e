"""The chapters: equations have their numbers in the code and back, demonstrations run, KaTeX takes every formula."""

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from pages import FENCE, PAGES, ROOT, fenced_formulas_of, formulas_of, prose_of, text_of

CHAPTERS = ("numpy/README.md", "pytorch_lowlevel/README.md", "paper/README.md")
KOREAN = [page for page in PAGES if page.endswith(".ko.md")]
CITATION = re.compile(r"eq\. (\d+(?:\.\d+)?(?:,? (?:and )?\d+\.\d+)*)", re.IGNORECASE)      # eq. 1.8; eq. 12, 1.13


def tags(text):
    return re.findall(r"\\tag\{(\d+\.\d+)\}", text)


def cited():
    """The equations that the code cites, by number, each with the files that do."""
    found = {}
    for path in (path for folder in ("common", "numpy", "pytorch_lowlevel", "paper", "tests", "exercises")
                 for path in (ROOT / folder).rglob("*.py")):
        for several in CITATION.findall(path.read_text("utf-8")):
            for number in re.findall(r"\d+\.\d+", several):
                found.setdefault(number, []).append(path.name)
    return found


def demonstrations():
    return [pytest.param(code, id=f"{page}: {number}") for page in ("README.md", "FAQ.md", *CHAPTERS, *KOREAN)
            for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL))]


def test_equations_are_numbered_once_and_in_order():
    for page in CHAPTERS:
        numbers = [tuple(map(int, tag.split("."))) for tag in tags(text_of(page))]
        assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers), page


def test_each_equation_is_cited_by_the_code_and_each_citation_exists():
    there = {tag for page in CHAPTERS for tag in tags(text_of(page))}
    found = cited()
    assert there and there - set(found) == set(), "no code cites these"
    assert {number: found[number] for number in set(found) - there} == {}, "no chapter has these"


@pytest.mark.parametrize("page", CHAPTERS)
def test_equations_that_a_chapter_mentions_exist(page):
    there = {tag for page in CHAPTERS for tag in tags(text_of(page))}
    assert set(re.findall(r"\(([1-9]\.\d+)\)", prose_of(page))) - there == set()


@pytest.mark.parametrize("code", demonstrations())
def test_a_demonstration_runs(code, tmp_path, monkeypatch):
    assert "assert" in code, "it shows nothing"
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<demonstration>", "exec"), {"__name__": "demonstration"})


@pytest.mark.parametrize("page", PAGES)
def test_a_heading_holds_no_command(page):
    """As it would where the empty line below it was lost."""
    assert re.findall(r"^#+ .* {4}.*$", prose_of(page), re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES)
def test_formulas_are_closed(page):
    """Each $ and each brace has its partner, on its own line, as code hosts want it."""
    for formula in fenced_formulas_of(page):
        counts = Counter(re.sub(r"\\[{}]", "", formula))
        sides = Counter(re.findall(r"\\(left|right)(?![a-z])", formula))                 # \leftarrow is none
        assert counts["{"] == counts["}"] and sides["left"] == sides["right"], formula
    for line in re.sub(r"^ {4}.*$|`[^`\n]*`", "", prose_of(page), flags=re.MULTILINE).splitlines():
        assert line.count("$") % 2 == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_markdown_leaves_the_backslashes_of_formulas_alone(page):
    """Outside of fences it takes those before punctuation away, and \\, becomes a comma: there it is \\thinspace."""
    fenced = fenced_formulas_of(page)
    assert [tex for tex, _ in formulas_of(page) if tex not in fenced and re.search(r"\\[^\w\s]", tex)] == []


KATEX = """
let katex
try { katex = require("katex") } catch { process.exit(3) }
const wrong = []
for (const [page, tex, displayMode] of JSON.parse(require("fs").readFileSync(0)))
    try { katex.renderToString(tex, {displayMode, strict: "error", throwOnError: true}) }
    catch (error) { wrong.push(`${page}: ${error.message}`) }
console.log(JSON.stringify(wrong))
"""


def katex_on(formulas):
    """What KaTeX says against these (page, TeX, on a line of its own). Skips the test where Node or KaTeX is missing."""
    if not shutil.which("node"):
        pytest.skip("no node on the path")
    done = subprocess.run(["node", "-e", KATEX], input=json.dumps(formulas), cwd=ROOT, capture_output=True,
                          encoding="utf-8", timeout=120)
    if done.returncode == 3:
        pytest.skip("node finds no katex: npm install --no-save --no-package-lock katex, in the repository")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_katex_takes_every_formula():
    """Strictly. Node looks for katex in node_modules/ of the repository, which git ignores, and in $NODE_PATH:

        npm install --no-save --no-package-lock katex
    """
    formulas = [(page, *formula) for page in PAGES for formula in formulas_of(page)]
    assert len(formulas) > 500
    assert katex_on(formulas) == []


@pytest.mark.parametrize(("tex", "displayed"), [(r"\frac{1}{2", True), (r"a \tag{1.1}", False), ("잠재 변수", True),
                                                (r"\nosuchthing", True)])
def test_katex_refuses(tex, displayed):
    assert len(katex_on([("page", tex, displayed), ("page", r"\frac12 \|a\|", displayed)])) == 1


# Decimal numbers in chapter 3's prose that no table of ours holds, and where they come from
GIVEN = {
    "settings": "0.003 0.01 0.02", "sections of the paper": "2.1 2.4", "printed elsewhere": "84.6 86.6",
    "other models, by their papers": "0.18215 2.87 2.91 81.1 81.74", "of the command beside them": "0.3 1.0 1.4 2.5 3.4",
    "worked out beside them": "1.7 5.0 88.1 94.6",
}


def test_the_numbers_in_chapter_3_are_those_of_its_tables():
    """So that a longer run, which changes the tables, finds the sentences that are to change with them."""
    prose, tables = prose_of("paper/README.md"), re.compile(r"<!-- (\w+): written by .*?<!-- end of \1 -->", re.DOTALL)
    no_result = re.compile(r"^ {4}.*$|`[^`\n]*`|\$[^$\n]+\$|\]\([^)\n]*\)|\([1-9]\.\d+[^)\n]*\)|arXiv:\S+", re.MULTILINE)
    told = no_result.sub("", tables.sub("", prose))
    written = set(re.findall(r"\d+\.\d+", " ".join(match[0] for match in tables.finditer(prose))))
    given = set(" ".join(GIVEN.values()).split())
    found = set(re.findall(r"(?<![\d.])\d+\.\d+", told))
    assert len(found) > 20 and found - written - given == set() and given <= found - written


def shape_of(page):
    """What a page and its translation share: levels of headings, code, formulas, rows of tables, folded answers."""
    text, prose = text_of(page), prose_of(page)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "code": [re.sub(r"#.*", "", fence) for fence in FENCE.findall(text)],
        "commands": [line.partition("  #")[0].rstrip() for line in re.findall(r"^ {4,6}\S.*$", prose, re.MULTILINE)],
        "formulas": re.findall(r"\$[^$\n]+\$", prose),
        "cells": [row.count("|") for row in re.findall(r"^\|.*\|$", prose, re.MULTILINE)],
        "links": re.findall(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)", re.sub(r"`[^`\n]*`", "", prose)),
        "numbers": sorted(re.findall(r"\d+\.\d+", prose)),
        "answers": text.count("<details>"),
    }


def twin_of(page, link):
    """Where a link has to lead in the translation of this page: to a translation, where there is one."""
    twin = link.removesuffix(".md") + ".ko.md"
    return twin if link.endswith(".md") and ((ROOT / page).parent / twin).exists() else link


@pytest.mark.parametrize("page", KOREAN)
def test_a_korean_page_has_what_the_english_one_has(page):
    original = page.replace(".ko.md", ".md")
    english, korean = shape_of(original), shape_of(page)
    ways = english["links"].pop(0), korean["links"].pop(0)
    assert ways == (Path(page).name, Path(original).name), "each begins with the way to the other"
    english["links"] = [twin_of(original, link) for link in english["links"]]
    for what, there in english.items():
        assert korean[what] == there, what
