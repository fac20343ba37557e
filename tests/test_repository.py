"""The repository as a newcomer meets it: NumPy is NumPy, commands in the READMEs run, tables are what the results say."""

import contextlib
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

from common import report
from common.data import load_dataset
from paper import reproduce

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("README.md")
                 if not {".venv", "runs", "node_modules", ".pytest_cache"} & set(path.relative_to(ROOT).parts))


def run(words, cwd, timeout=240):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "numpy")))}
    if "VAE_DATA" in environment:
        environment["VAE_DATA"] = str(Path(environment["VAE_DATA"]).resolve())          # the command runs elsewhere
    return subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def commands():
    """(README, command) for every python line of the READMEs' code blocks."""
    found = []
    for readme in READMES:
        for line in re.findall(r"^    (\S.*)$", (ROOT / readme).read_text("utf-8"), re.MULTILINE):
            for command in line.partition("  #")[0].split("&&"):
                words = shlex.split(command)
                if words and words[0] == "python":
                    found.append(pytest.param(readme, words, id=f"{readme}: {command.strip()}"))
    return found


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


@pytest.mark.parametrize(("readme", "words"), commands())
def test_a_command_of_a_readme_names_what_exists(readme, words):
    """The script is there, and its --help knows every option."""
    assert (ROOT / words[1]).is_file(), f"{readme} names {words[1]}"
    unknown = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - options_of(words[1])
    assert not unknown, f"{readme}: {words[1]} has no option {unknown}"


@pytest.mark.parametrize("script", ["tests/benchmark.py", "tests/compare_gradients.py", "common/report.py",
                                    "numpy/sample_numpy.py", "paper/reproduce.py", "paper/train_paper.py",
                                    "paper/train_distributed.py"])
def test_help_of_a_script(script):
    assert "--help" in options_of(script)


@pytest.mark.parametrize("readme", READMES)
def test_links_of_a_readme_lead_somewhere(readme):
    text = (ROOT / readme).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / readme).parent.joinpath(target).exists(), f"{readme} links to {target}"


@pytest.mark.parametrize("readme", READMES)
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(readme):
    tables = re.findall(r"(?:^\|.*\|$\n?)+", (ROOT / readme).read_text("utf-8"), re.MULTILINE)
    for table in tables:
        counts = {row: len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        head = table.splitlines()[0]
        assert [row for row, count in counts.items() if count != counts[head]] == [], readme


@pytest.mark.parametrize("readme", report.TABLES)
def test_the_tables_of_a_readme_are_what_the_results_say(readme):
    text = (ROOT / readme).read_text("utf-8")
    told = report.with_tables(text, report.tables_of(readme))
    assert told == text, f"run: python common/report.py   ({readme} is behind)"


@pytest.mark.parametrize("readme", reproduce.READMES)
def test_the_reproduction_in_a_readme_is_what_the_results_say(readme):
    text = (ROOT / readme).read_text("utf-8")
    told = report.with_tables(text, reproduce.tables_of(readme))
    assert told == text, f"run: python paper/reproduce.py report   ({readme} is behind)"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_readmes_run(tmp_path):
    """In their order, in an empty folder; MNIST for one epoch each, and only where it lies."""
    mnist = "VAE_DATA" in os.environ and (Path(os.environ["VAE_DATA"]) / "MNIST" / "raw").is_dir()
    ran, seen = 0, []
    for readme, words in (param.values for param in commands()):
        if words[1] == "common/report.py" or "FILE.npz" in words or words[-1] == "report":
            continue
        if words[1] == "paper/reproduce.py" and "list" not in words:
            continue                                    # an hour; or quick, which test_reproduce.py runs, all of them
        if words[1] == "exercises/train_weights.py" or "--solutions" in words:
            continue                                    # writes over the committed weights; test_exercises.py runs these
        if words[1].startswith("exercises/") and words in seen:
            continue                                    # all notebooks, once more
        seen.append(words)
        if "mnist" in words and not mnist:
            continue
        extra = []
        if "/train_" in words[1] and ("--epochs" not in words or "mnist" in words):     # the last --epochs counts
            extra = ["--epochs", "1" if "mnist" in words else "3"]
        elif words[1] == "tests/benchmark.py":
            extra = ["--quick"]
        done = run([sys.executable, ROOT / words[1], *words[2:], *extra], tmp_path)
        expected = 1 if "--plant" in words else 0
        assert done.returncode == expected, f"{readme}: {shlex.join(words)}\n{done.stdout[-500:]}{done.stderr[-1500:]}"
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
