"""Checks your answers: one function for each task, which takes yours and says what is wrong with it.

    from exercises import check
    check.kl_per_latent(kl_per_latent)          # in a notebook, under the function that you wrote

    python exercises/check.py                   # in a terminal: runs your notebooks and prints how far you are
    python exercises/check.py 01 03             # these two
    python exercises/check.py --solutions       # the same for the solutions

Your notebooks are not changed by it. A cell that takes longer than a minute is stopped.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.reader import NotJSONError

from common.cli import run_command
from common.config import InputError
from exercises.build import HERE, SECONDS, choose, execute
from exercises.checks import beta_and_collapse, conditional, elbo, gradients, interpolation, latent_space, your_own
from exercises.checks.verdict import NOT_ATTEMPTED, RECORD, SOLVED, TASKS, WRONG, Verdict

MODULES = (latent_space, interpolation, gradients, elbo, beta_and_collapse, conditional, your_own)  # importing fills TASKS


def __getattr__(name: str):
    """check.posterior is the task of that name."""
    if name in TASKS:
        return TASKS[name]
    raise AttributeError(f"there is no task {name}: choose from {', '.join(TASKS)}")


def verdicts(path: Path) -> list[Verdict]:
    """Runs a copy of the notebook's cells in a process of its own: a verdict for each of the exercise's tasks.

    Raises InputError where the file is no notebook.
    """
    try:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
    except (OSError, NotJSONError, nbformat.ValidationError, AttributeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path} is no notebook ({reason}): `git checkout {path}` brings the blank one back") from error
    with tempfile.TemporaryDirectory() as folder:
        os.environ[RECORD] = str(Path(folder) / "verdicts")
        try:
            execute(book, HERE, SECONDS, go_on=True)
        finally:
            record = os.environ.pop(RECORD)
        lines = Path(record).read_text("utf-8").splitlines() if Path(record).exists() else []
    told = {verdict.name: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}      # the last one counts
    return [told.get(name) or Verdict(each.number, name, *unreached(book, name))
            for name, each in TASKS.items() if each.number[:2] == path.name[:2]]


def unreached(book, name: str) -> tuple[str, str]:
    """State and message of a task whose check gave no verdict: the first error of the cells up to that check."""
    calls = [i for i, cell in enumerate(book.cells) if cell.cell_type == "code" and f"check.{name}(" in cell.source]
    if not calls:
        return NOT_ATTEMPTED, f"The line check.{name}(...) is gone."
    for cell in reversed(book.cells[:calls[0] + 1]):            # the nearest one is the likeliest cause
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename not in ("NameError", "NotImplementedError"):
                stopped = output.ename == "KeyboardInterrupt"
                return WRONG, (f"A cell took longer than {SECONDS} seconds and was stopped." if stopped else
                               f"{output.ename}: {output.evalue}".splitlines()[0])
    return NOT_ATTEMPTED, ""


def board(path: Path, results: list[Verdict]) -> str:
    width = max(len(verdict.name) for verdict in results)
    lines = [path.stem, *(f"  {verdict.number:5}  {verdict.name:{width}}  {verdict.state:13}  {verdict.message}".rstrip()
                          for verdict in results)]
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="exercises, by number (default: all)")
    parser.add_argument("--solutions", action="store_true", help="run the solutions instead of your notebooks")
    options = parser.parse_args(argv)
    counts = dict.fromkeys((SOLVED, WRONG, NOT_ATTEMPTED), 0)
    folder = HERE / "solutions" if options.solutions else HERE
    for path in choose(sorted(folder.glob("[0-9][0-9]_*.ipynb")), options.numbers):
        results = verdicts(path)
        print(board(path, results), end="\n\n", flush=True)
        for verdict in results:
            counts[verdict.state] += 1
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts[WRONG] or options.solutions and counts[NOT_ATTEMPTED]:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_command(main))
