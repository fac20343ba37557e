"""The exercises: what is committed is what the sources give, solutions pass, blanks say so, the board tells it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest

from common.cli import run_command
from common.config import InputError, parameter_shapes
from common.data import load_dataset
from exercises import build, check, lab, train_weights
from exercises.checks.verdict import (
    NOT_ATTEMPTED,
    RECORD,
    SOLVED,
    TASKS,
    WRONG,
    Verdict,
    Wrong,
    call,
    compare,
)
from exercises.checks.verdict import number as one_number

ROOT = Path(__file__).resolve().parent.parent
SOURCES = build.sources()
NUMBERS = [source.name[:2] for source in SOURCES]


def cells(book):
    """Kind and source of every cell: what was built, without ids and outputs."""
    return [(cell.cell_type, cell.source.rstrip()) for cell in book.cells]


def cells_of(path):
    return cells(nbformat.read(path, as_version=4))


def worked_in(path):
    """A learner's file that was changed since it was checked out: nothing to complain of."""
    git = shutil.which("git")
    return bool(git) and bool(subprocess.run([git, "status", "--porcelain", "--", path], cwd=ROOT, capture_output=True,
                                             text=True).stdout.strip())


def answers(text):
    """The names that a version of an exercise defines, from its first cell and those with a task in it."""
    code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    for number, cell in enumerate(code):
        if number == 0 or "SOLUTION" in cell or "NotImplementedError(" in cell:
            lines = [line for line in cell.splitlines() if not line.startswith("check.")]
            exec(compile("\n".join(lines), "<cell>", "exec"), names)
    return names


def whole(source):
    """All that an exercise is written in: its source, and the Python files in which answers of it stand."""
    return "\n".join(path.read_text("utf-8") for path in (source, *build.modules(source)))


def tasks_of(source):
    return [each for each in TASKS.values() if each.number[:2] == source.name[:2]]


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_the_files_of_an_exercise_are_what_its_source_gives(source):
    pytest.importorskip("jupytext", reason="jupytext, of the extra [dev], builds them")
    text, page = source.read_text("utf-8"), build.HERE / source.name
    book = page.with_suffix(".ipynb")
    for module in build.modules(source):
        learners = build.HERE / module.name
        if learners.read_text("utf-8") != build.blanked(module.read_text("utf-8")) and worked_in(learners):
            pytest.skip(f"{learners.name} was worked in")
        assert learners.read_text("utf-8") == build.blanked(module.read_text("utf-8")), "run: python exercises/build.py"
    assert page.read_text("utf-8") == build.blanked(text), f"run: python exercises/build.py {source.name[:2]}"
    built = cells(build.notebook(build.blanked(text)))
    if cells_of(book) != built and worked_in(book):
        pytest.skip(f"{book.name} was worked in")
    assert cells_of(book) == built, f"run: python exercises/build.py {source.name[:2]}"
    built = cells(build.notebook(build.solved(text)))
    assert cells_of(source.with_suffix(".ipynb")) == built, f"run: python exercises/build.py {source.name[:2]}"


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_a_built_solution_has_its_pictures_and_no_error_and_is_small(source):
    book = source.with_suffix(".ipynb")
    outputs = [output for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "code"
               for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "it ends in a picture"
    assert book.stat().st_size < 1_000_000


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_no_exercise_holds_an_answer(source):
    text = whole(source)
    blank = build.blanked(text)
    assert "SOLUTION" not in blank
    for _, _, answer in build.ANSWER.findall(text):
        line = max((line.strip() for line in answer.splitlines()), key=len)         # the one that says most
        assert line not in blank, f"the answer {line!r} stands elsewhere too"


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_the_tasks_of_a_source_are_those_that_are_checked(source):
    text = whole(source)
    told = [f"{each.number} {each.name}" for each in tasks_of(source)]
    assert [name for _, name, _ in build.ANSWER.findall(text)] == told
    assert re.findall(r"^check\.(\w+)\((?:\1|MODULE)\)$", text, re.MULTILINE) == [each.name for each in tasks_of(source)]


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_the_solutions_pass_and_the_blanks_are_not_attempted(source, tmp_path):
    text = source.read_text("utf-8")
    for version, state in ((build.solved, SOLVED), (build.blanked, NOT_ATTEMPTED)):
        names = answers(text if state == SOLVED else version(text))
        for module in build.modules(source):                # its checks take the file, whichever function they ask for
            (tmp_path / module.name).write_text(version(module.read_text("utf-8")), "utf-8")
            names |= dict.fromkeys((each.name for each in tasks_of(source)), tmp_path / module.name)
        for each in tasks_of(source):
            verdict = each.judge(names[each.name])
            assert verdict.state == state, verdict


@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_each_task_has_three_hints_and_each_exercise_questions_with_answers(source):
    text = source.read_text("utf-8")
    parts = re.split(r"^check\..*\)$", text, flags=re.MULTILINE)
    assert len(parts) == len(tasks_of(source)) + 1
    for before in parts[:-1]:
        assert [int(step) for step in re.findall(r"<summary>Hint (\d)", before)] == [1, 2, 3]
    assert len(re.findall(r"<details><summary>[^<]*\?", parts[-1])) >= 3
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")


# ---- the checks' own machinery -----------------------------------------------------------------------------------------


def test_a_function_that_changes_its_argument_is_told_so():
    def in_place(a):
        a += 1
        return a
    with pytest.raises(Wrong, match="argument number 1"):
        call(in_place, np.zeros(3))


@pytest.mark.parametrize(("got", "words"), [
    (None, "numbers"), ([1.0, 2.0], "shape"), ([1.0, 2.0, float("nan")], "NaN"), ([2.0, 4.0, 6.0], "2 times"),
    ([1.0, 2.0, 3.1], r"off by up to 0\.1.*\[2\]"), ("words", "numbers"), ([3.0, 2.0, 1.0], "backwards"),
    ([0.0, 0.0, 0.0], "off by up to 3"),
])
def test_a_wrong_array_is_told_what_is_wrong(got, words):
    with pytest.raises(Wrong, match=words):
        compare("the answer", got, [1.0, 2.0, 3.0], {"It is backwards.": np.array([3.0, 2.0, 1.0])})


def test_an_answer_is_right_to_the_rounding_of_float64_and_in_its_own_shape():
    """Sums in another order differ by 1e-15 a term; a probability that was clamped at 1e-6 is no rounding."""
    right = np.array([1.0, 2.0, 3.0])
    compare("the answer", right * (1 + 1e-12), right)
    for got, words in ((right + [0, 0, 1e-6], r"off by up to 1e-06.*\[2\]"), (right[:, None], r"shape \(3,\)"),
                       (right[None], r"shape \(3,\)")):
        with pytest.raises(Wrong, match=words):
            compare("the answer", got, right)


@pytest.mark.parametrize("got", [-0.01, 1.01, float("nan"), [0.5], True, "half"], ids=str)
def test_a_number_lies_within_both_of_its_limits_and_is_one(got):
    for limit in (0, 1.0, np.float32(0.5)):
        one_number("the share", limit, low=0, high=1)
    with pytest.raises(Wrong, match="The share should"):
        one_number("the share", got, low=0, high=1)


def test_an_answer_that_stops_is_told_where():
    verdict = TASKS["posterior"].judge(lambda *arguments: [][1])
    assert verdict.state == WRONG and "IndexError" in verdict.message and "line" in verdict.message
    assert "not a function" in TASKS["posterior"].judge(3).message


def test_a_task_that_is_none_is_named():
    with pytest.raises(AttributeError, match="there is no task nothing: choose from .*posterior"):
        check.nothing  # noqa: B018


def test_the_images_of_the_exercises_are_the_test_and_the_training_images_black_and_white():
    data = load_dataset("digits")
    for (x, y), images, labels in ((lab.test_images("digits"), data.x_test, data.y_test),
                                   (lab.train_images("digits"), data.x_train, data.y_train)):
        np.testing.assert_array_equal(x, images > 0.5)              # of whole sixteenths: no rounding
        np.testing.assert_array_equal(y, labels)


# ---- the board ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("states", "solutions", "code"), [
    ((SOLVED, SOLVED), False, 0), ((SOLVED, NOT_ATTEMPTED), False, 0), ((WRONG, SOLVED), False, 1),
    ((SOLVED, SOLVED), True, 0), ((SOLVED, NOT_ATTEMPTED), True, 1), ((SOLVED, WRONG), True, 1),
])
def test_the_board_ends_with_1_where_an_answer_is_wrong_or_a_solution_is_missing(states, solutions, code, monkeypatch,
                                                                                 capsys):
    folders = []
    monkeypatch.setattr(check, "verdicts", lambda path: folders.append(path.parent) or [
        Verdict(f"01.{i}", f"task{i}", state) for i, state in enumerate(states)])
    try:
        assert run_command(lambda: check.main(["01", *["--solutions"] * solutions])) == code
    except SystemExit as ended:
        assert (ended.code or 0) == code
    assert folders == [build.HERE / "solutions" if solutions else build.HERE]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (SOLVED, WRONG, NOT_ATTEMPTED))
    assert capsys.readouterr().out.splitlines()[-1] == counts


def notebook_of(*cells):
    """Cells of code: each its source, and an error that it stopped with, if any."""
    new = nbformat.v4

    def outputs(names):
        return [new.new_output("error", ename=name, evalue="mine", traceback=[]) for name in names]

    return new.new_notebook(cells=[new.new_code_cell(source, outputs=outputs(names)) for source, *names in cells])


def test_of_a_task_that_was_judged_twice_the_last_verdict_counts(monkeypatch):
    def executed(book, *arguments, **settings):
        with open(os.environ[RECORD], "a", encoding="utf-8") as file:
            for state in (WRONG, NOT_ATTEMPTED, SOLVED):
                file.write(json.dumps({"number": "01.1", "name": "posterior", "state": state, "message": ""}) + "\n")

    monkeypatch.setattr(check, "execute", executed)
    first, second, *_ = check.verdicts(build.HERE / "01_latent_space.ipynb")
    assert (first.name, first.state) == ("posterior", SOLVED)
    assert (second.name, second.state) == ("latent_plane", NOT_ATTEMPTED)
    assert RECORD not in os.environ


def test_a_task_without_a_verdict_is_told_the_error_nearest_before_its_check():
    asks = "check.posterior(posterior)"
    for cells, expected in (
        ([["x = 1", "KeyError"], ["y = 2", "ValueError"], [asks, "NameError"], ["z = 3", "TypeError"]],
         (WRONG, "ValueError: mine")),
        ([["x = 1"], [asks, "NotImplementedError"], ["z = 3", "TypeError"]], (NOT_ATTEMPTED, "")),
        ([[asks, "KeyboardInterrupt"]], (WRONG, "A cell took longer than 60 seconds and was stopped.")),
        ([["x = 1", "KeyError"]], (NOT_ATTEMPTED, "The line check.posterior(...) is gone.")),
    ):
        assert check.unreached(notebook_of(*cells), "posterior") == expected


def test_weights_that_are_none_are_named():
    with pytest.raises(InputError, match="choose one of .*digits-vae-2"):
        lab.weights("digits", "vae-3")


@pytest.mark.parametrize("name", train_weights.RUNS)
def test_the_weights_of_the_exercises_load_as_float32(name):
    data, _, model = name.partition("-")
    params, config = lab.weights(data, model)
    assert all(array.dtype == np.float32 for array in params.values()) and set(params) == set(parameter_shapes(config))
    assert config.hidden == 200
    with np.load(lab.WEIGHTS / f"{name}.npz") as kept:                  # they are this model's, and no other's
        for weight, array in params.items():
            np.testing.assert_array_equal(array, kept[weight].astype(np.float32))


def test_the_weights_of_the_exercises_are_small():
    assert sum(path.stat().st_size for path in lab.WEIGHTS.glob("*.npz")) < 4_000_000


@pytest.mark.parametrize(("script", "words"), [(check, ["42"]), (build, ["42"]), (train_weights, ["no-such"])])
def test_an_exercise_that_is_none_is_one_line(script, words, capsys):
    assert run_command(lambda: script.main(words)) == 2
    assert "choose from" in capsys.readouterr().err


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "01_latent_space.ipynb").write_text("{}")
    with pytest.raises(InputError, match="01_latent_space.ipynb is no notebook"):
        check.verdicts(tmp_path / "01_latent_space.ipynb")


# ---- in a kernel -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=NUMBERS)
def test_the_solution_notebook_runs_and_passes(source):
    """As `check.py --solutions` does it: every cell in a fresh kernel, at most a minute each, none stops with an error."""
    results = check.verdicts(source.with_suffix(".ipynb"))
    assert [verdict for verdict in results if verdict.state != SOLVED] == []
    assert [verdict.name for verdict in results] == [each.name for each in tasks_of(source)]


@pytest.mark.slow
def test_the_board_tells_what_is_solved_wrong_and_not_attempted(tmp_path, monkeypatch, capsys):
    """A learner's notebook: one right answer, one that breaks off, one wrong, one cell that never ends, the rest blank."""
    text = (build.HERE / "01_latent_space.md").read_text("utf-8")
    right = build.ANSWER.search(SOURCES[0].read_text("utf-8")).group(3)
    for name, answer in (("posterior", right), ("latent_plane", "    return [][side]\n"),
                         ("kl_per_latent", "    return mu.mean(axis=0)\n"), ("active_units", "    while True: pass\n")):
        blank = re.search(rf'    raise NotImplementedError\("\S+ {name}"\)\n', text).group()
        text = text.replace(blank, answer)
    text = text.replace('DATA = "digits"', 'DATA = "digits"\n%matplotlib inline')
    book = tmp_path / "01_latent_space.ipynb"
    book.write_text(nbformat.writes(build.notebook(text)))
    monkeypatch.setattr(check, "SECONDS", 8)
    states = {verdict.name: (verdict.state, verdict.message) for verdict in check.verdicts(book)}
    assert states["posterior"][0] == SOLVED
    assert states["latent_plane"][0] == WRONG and "IndexError" in states["latent_plane"][1]
    assert states["kl_per_latent"][0] == WRONG
    assert states["active_units"][0] == WRONG and "8 seconds" in states["active_units"][1]
    assert {states[name][0] for name in ("posterior_draws", "evenness", "distance_to_data")} == {NOT_ATTEMPTED}
