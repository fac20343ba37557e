"""The repository as a newcomer meets it: NumPy is NumPy, commands in the pages run, tables are what the results say."""

import contextlib
import difflib
import functools
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import benchmark
import benchmark_training
import pytest
from pages import PAGES, ROOT, prose_of, text_of

from common import report
from common.config import InputError
from common.data import load_dataset
from common.korean import korean
from paper import reproduce

BLOCK, INLINE = r"^ {4,6}(\S.*)$", r"`((?:python )?[\w/]+\.py [^`]+)`"


def run(words, cwd, timeout=240):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "numpy")))}
    if "VAE_DATA" in environment:
        environment["VAE_DATA"] = str(Path(environment["VAE_DATA"]).resolve())          # the command runs elsewhere
    return subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def commands(*where):
    """(page, command) for every command of the pages that runs a script, in a BLOCK, INLINE, or both; each once."""
    found = {}
    for page in PAGES:
        for line in (line for pattern in where for line in re.findall(pattern, prose_of(page), re.MULTILINE)):
            for command in line.partition("  #")[0].split("&&"):
                script = re.match(r"\s*(?:python )?([\w/]+\.py\b.*)", command)
                if script:
                    words = ("python", *shlex.split(script[1]))
                    found.setdefault(words, pytest.param(page, words, id=f"{page}: {shlex.join(words)}"))
    return list(found.values())


@pytest.mark.parametrize("folder", [".", "numpy", "tests", "common"])
def test_numpy_is_numpy_in_a_fresh_interpreter(folder):
    program = "import numpy; print(numpy.__file__, numpy.arange(3).sum(), numpy.random.rand() < 1)"
    done = run([sys.executable, "-c", program], ROOT / folder)
    assert done.returncode == 0, done.stderr
    location, total, draw = done.stdout.split()
    assert Path(location).parent != ROOT / "numpy" and (total, draw) == ("3", "True")


def test_the_folder_numpy_holds_nothing_that_could_shadow_numpy():
    names = {path.name for path in (ROOT / "numpy").glob("*.py")}
    assert names and all(name.endswith("_numpy.py") for name in names), names


def test_module_names_are_unique():
    folders = ("numpy", "pytorch_lowlevel", "paper", "common", "tests")
    names = Counter(path.stem for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_levels_import_nothing_of_each_other():
    for path in (ROOT / "numpy").glob("*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"^\s*(import|from) (torch|pytorch_lowlevel|paper)\b", text, re.MULTILINE), path
    for path in (ROOT / "paper").rglob("*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"^\s*(import|from) (pytorch_lowlevel|\w+_numpy)\b", text, re.MULTILINE), path
    for path in (ROOT / "pytorch_lowlevel").glob("*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"^\s*(import|from) (paper|\w+_numpy)\b", text, re.MULTILINE), path
        assert not re.search(r"\((torch\.)?nn\.Module\)|= torch\.optim", text), path


def test_the_vae_by_hand_stays_within_150_lines():
    assert len((ROOT / "numpy" / "vae_numpy.py").read_text().splitlines()) <= 150


@functools.cache
def options_of(script):
    """The options that a script's --help lists. (In this process, which has imported everything already.)"""
    told, argv = io.StringIO(), sys.argv
    sys.argv = [script, "--help"]
    try:
        with contextlib.redirect_stdout(told), pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        sys.argv = argv
    assert stop.value.code == 0, script
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", told.getvalue()))


@pytest.mark.parametrize(("page", "words"), commands(BLOCK, INLINE))
def test_a_command_of_a_page_names_what_exists(page, words):
    """The script is there, and its --help knows every option."""
    assert (ROOT / words[1]).is_file(), f"{page} names {words[1]}"
    unknown = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - options_of(words[1])
    assert not unknown, f"{page}: {words[1]} has no option {unknown}"


@pytest.mark.parametrize("script", ["tests/benchmark.py", "tests/compare_gradients.py", "common/report.py",
                                    "numpy/sample_numpy.py", "paper/reproduce.py", "paper/train_paper.py",
                                    "paper/train_distributed.py"])
def test_help_of_a_script(script):
    assert "--help" in options_of(script)


@functools.cache
def anchors_of(page):
    """What links to the headings of a page are called, as GitHub calls them."""
    found = Counter()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        heading = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)                     # a link's words
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[f"{name}-{found[name]}" if found[name] else name] += 1
    return found


def test_anchors_are_those_of_github(monkeypatch):
    page = "# KL_q, `a.b` and *c-d*?\n## [NaN](x.md)\n```python\n# no heading\n```\n## NaN\n### 1. 잠재 변수(z)란?\n"
    monkeypatch.setitem(globals(), "prose_of", lambda _: re.sub("(?s)```.*```", "", page))
    assert list(anchors_of("a made-up page")) == ["kl_q-ab-and-c-d", "nan", "nan-1", "1-잠재-변수z란"]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose_of(page))):
        if "://" not in link:
            target, _, anchor = link.partition("#")
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.exists(), f"{page} links to {link}"
            if anchor and path.suffix == ".md":
                assert anchor in anchors_of(path.resolve().relative_to(ROOT).as_posix()), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(page):
    for table in re.findall(r"(?:^\|.*\|$\n?)+", prose_of(page), re.MULTILINE):
        counts = {row: len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        head = table.splitlines()[0]
        assert [row for row, count in counts.items() if count != counts[head]] == [], page


@pytest.mark.parametrize("readme", report.TABLES)
def test_the_tables_of_a_readme_are_what_the_results_say(readme):
    text = text_of(readme)
    told = report.with_tables(text, report.tables_of(readme))
    assert told == text, f"run: python common/report.py   ({readme} is behind)"


@pytest.mark.parametrize("readme", reproduce.READMES)
def test_the_reproduction_in_a_readme_is_what_the_results_say(readme):
    text = text_of(readme)
    told = report.with_tables(text, reproduce.tables_of(readme))
    assert told == text, f"run: python paper/reproduce.py report   ({readme} is behind)"


@pytest.mark.parametrize(("module", "readme"), [(report, "README.md"), (reproduce, "README.md"),
                                                (reproduce, "paper/README.md")])
def test_the_korean_tables_have_the_cells_the_numbers_and_the_code_of_the_english_ones(module, readme):
    english, korean_ones = (module.tables_of(each) for each in (readme, readme.replace(".md", ".ko.md")))
    assert list(english) == list(korean_ones)
    for name, lines in english.items():
        assert len(lines) == len(korean_ones[name])
        for line, told in zip(lines, korean_ones[name], strict=True):
            for what in (r"(?<!\\)\|", r"[0-9][0-9,.:]*[0-9]|[0-9]", r"`[^`]*`", r"\*\*"):
                assert Counter(re.findall(what, line)) == Counter(re.findall(what, told)), (line, told)


@pytest.mark.parametrize("name", reproduce.EXPERIMENTS)
def test_every_label_of_a_name_has_its_korean_in_every_preset(name):
    """A part whose result is not there borrows that of the part whose name is nearest."""
    known = {key: part["result"] for _, results in reproduce.all_results([name])
             for key, part in results["parts"].items()}
    module = reproduce.experiment(name)
    for settings in module.PRESETS.values():
        parts = {key: {"result": known[difflib.get_close_matches(key, known, n=1, cutoff=0)[0]]}
                 for key in module.parts(settings)}
        for row in module.rows({"settings": settings, "parts": parts}):
            assert all(korean(cell) or not cell for cell in row)


@pytest.mark.parametrize("label", ["an unheard-of label", "MNIST, 3 latents: an unheard-of label, nats"])
def test_a_label_without_korean_is_named(label):
    with pytest.raises(InputError, match=f"no Korean for '{label}'"):
        korean(label)


def test_a_readme_that_is_missing_is_named_when_the_others_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("<!-- a: written -->\n<!-- end of a -->\n")
    with pytest.raises(InputError, match="missing.*README.ko.md"):
        report.write_tables(["README.ko.md", "there.md"], lambda _: {"a": ["| 1 |"]})
    assert "| 1 |" in (tmp_path / "there.md").read_text() and capsys.readouterr().out == "written: there.md\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_pages_run(tmp_path):
    """In their order, in an empty folder; MNIST for one epoch each, and only where it lies."""
    mnist = "VAE_DATA" in os.environ and (Path(os.environ["VAE_DATA"]) / "MNIST" / "raw").is_dir()
    ran = 0
    for page, words in (param.values for param in commands(BLOCK)):
        if words[1] == "common/report.py" or "FILE.npz" in words or words[-1] == "report":
            continue
        if words[1] == "paper/reproduce.py" and "list" not in words:
            continue                                    # an hour; or quick, which test_reproduce.py runs, all of them
        if words[1] == "exercises/train_weights.py" or "--solutions" in words:
            continue                                    # writes over the committed weights; test_exercises.py runs these
        if "mnist" in words and not mnist:
            continue
        extra = []
        if "/train_" in words[1] and ("--epochs" not in words or "mnist" in words):     # the last --epochs counts
            extra = ["--epochs", "1" if "mnist" in words else "3"]
        elif words[1] == "tests/benchmark.py":
            extra = ["--quick"]
        done = run([sys.executable, ROOT / words[1], *words[2:], *extra], tmp_path)
        expected = 1 if "--plant" in words else 0
        assert done.returncode == expected, f"{page}: {shlex.join(words)}\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        ran += 1
    assert ran >= 8
    assert list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_the_benchmark_prints_every_contestant(arch, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN", 0.01)                # seconds: it is the table that is tested
    benchmark.main(["--arch", arch, "--seconds", "0.1", "--write", str(tmp_path / "speed.json")])
    speed = json.loads((tmp_path / "speed.json").read_text())["images_per_second"][arch]
    lines = capsys.readouterr().out.splitlines()
    assert len(speed) == 6 and all(rate > 0 for rate in speed.values())
    for name, rate in speed.items():
        assert any(line.startswith(name) and f"{rate:,.0f}" in line for line in lines), name


@pytest.mark.slow
def test_the_benchmark_of_trainings_and_log_p_writes_what_its_table_needs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN", 0.01)
    monkeypatch.setattr(benchmark_training, "mnist_or_digits", lambda: load_dataset("digits"))
    benchmark.main(["--quick", "--arch", "mlp", "--all", "--write", str(tmp_path / "speed.json")])
    monkeypatch.setattr(report, "BENCHMARK", tmp_path / "speed.json")
    table = "\n".join(report.benchmark_table())
    for word in ("level 3 (nn.Module)", "the well-known example", "test ELBO of −100", "log p(x)"):
        assert word in table, word


def test_a_later_measurement_joins_the_earlier_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN", 0.01)
    monkeypatch.setattr(benchmark_training, "mnist_or_digits", lambda: load_dataset("digits"))
    file = tmp_path / "speed.json"
    file.write_text(report.BENCHMARK.read_text())
    before = json.loads(file.read_text())
    benchmark.main(["--quick", "--only", "loop", "--write", str(file)])
    after = json.loads(file.read_text())
    assert after | {"loop": None} == before | {"loop": None}
    assert after["loop"]["level 3"] > 0 and after["loop"]["machine"]["cores"] > 0 and after["loop"]["data"] == "digits"


def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("not JSON")
    with pytest.raises(ValueError, match="notes.txt is no file of this program"):
        benchmark.main(["--quick", "--write", str(tmp_path / "notes.txt")])


def test_a_readme_without_a_place_for_its_table_is_named():
    with pytest.raises(ValueError, match="the place of the table levels"):
        report.with_tables("no table here", {"levels": []})


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="not the folder of a finished run"):
        report.record(tmp_path)
