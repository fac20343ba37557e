"""Writes what learners open, from one source per exercise, exercises/solutions/NN_topic.md.

    python exercises/build.py                   # everything; each solution is executed, in less than a minute
    python exercises/build.py 01 05             # these two
    python exercises/build.py --without-running # the learners' files only

It needs the extra [dev] (jupytext), and writes:

    exercises/NN_topic.md                   to read: the source with blanks where the answers were
    exercises/NN_topic.ipynb                to work in
    exercises/solutions/NN_topic.ipynb      the source, executed, with its pictures
    exercises/my_vae.py                     to work in, too: exercises/solutions/my_vae.py with blanks

It writes over learners' files, without a question: it is for whoever changes an exercise. An answer stands between two
lines of the source, the first of which names the task; the blank raises that name:

    ### BEGIN SOLUTION 01.1 posterior
    ### END SOLUTION
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

from common.checkpoints import write_text
from common.cli import run_command
from common.config import InputError

HERE = Path(__file__).resolve().parent
ANSWER = re.compile(r"^( *)### BEGIN SOLUTION (\S+ \S+)\n(.*?)^ *### END SOLUTION\n", re.MULTILINE | re.DOTALL)
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
SECONDS = 60                                        # an exercise computes no longer


def sources() -> list[Path]:
    """The sources, in the order of the exercises."""
    return sorted((HERE / "solutions").glob("[0-9][0-9]_*.md"))


def choose(paths: list[Path], numbers: list[str]) -> list[Path]:
    """Those of these files whose names begin with the numbers, all without one. Raises InputError where one has no file."""
    there = [path.name[:2] for path in paths]
    unknown = set(numbers) - set(there)
    if unknown:
        raise InputError(f"there is no exercise {', '.join(sorted(unknown))}: choose from {', '.join(there)}")
    return [path for path in paths if not numbers or path.name[:2] in numbers]


def modules(source: Path) -> list[Path]:
    """The Python files in which answers of this exercise stand, with its number."""
    return [path for path in sorted(source.parent.glob("*.py"))
            if any(name[:2] == source.name[:2] for _, name, _ in ANSWER.findall(path.read_text("utf-8")))]


def blanked(text: str) -> str:
    """The learner's version: each answer becomes the line that raises its task's name, and modules lie in exercises/."""
    return ANSWER.sub(r'\1raise NotImplementedError("\2")\n', text).replace('"solutions/', '"')


def solved(text: str) -> str:
    """The solution's version: the answers stay, their marks go."""
    return ANSWER.sub(r"\3", text)


def notebook(text: str) -> nbformat.NotebookNode:
    """Markdown with ```python cells as a notebook without outputs; the same text gives the same notebook."""
    import jupytext  # of the extra [dev]: who solves exercises does not build them

    book = jupytext.reads(text, "md")
    book.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(book.cells):      # jupytext draws ids at random
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
    return book


def execute(book: nbformat.NotebookNode, folder: Path, seconds: float = SECONDS, go_on: bool = False):
    """Runs the notebook in place, with `folder` as its working directory and a limit for each cell.

    go_on: an error is kept as the cell's output, and the next cell runs; else it is raised.
    """
    from nbclient import NotebookClient
    NotebookClient(book, timeout=seconds, kernel_name="python3", allow_errors=go_on, interrupt_on_timeout=go_on,
                   record_timing=False, coalesce_streams=True,
                   extra_arguments=["--log-level=40"],        # a kernel warns of every connection that is not encrypted
                   resources={"metadata": {"path": str(folder)}}).execute()


def build(source: Path, run: bool):
    """Writes the files of one exercise and prints their names."""
    text = source.read_text("utf-8")
    if not ANSWER.search(text) and not modules(source):
        raise InputError(f"{source} has no line '### BEGIN SOLUTION 01.1 name': without an answer it is no exercise")
    learner = HERE / source.name
    written = {learner: blanked(text), learner.with_suffix(".ipynb"): nbformat.writes(notebook(blanked(text)))}
    written |= {HERE / path.name: blanked(path.read_text("utf-8")) for path in modules(source)}
    if run:
        book = notebook(solved(text))
        execute(book, HERE)
        written[source.with_suffix(".ipynb")] = nbformat.writes(book)
    for path, content in written.items():
        write_text(path, content.rstrip("\n") + "\n")
        print(path.relative_to(HERE.parent))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="exercises, by number (default: all)")
    parser.add_argument("--without-running", action="store_true", help="leave the executed solutions as they are")
    options = parser.parse_args(argv)
    for source in choose(sources(), options.numbers):
        build(source, run=not options.without_running)


if __name__ == "__main__":
    sys.exit(run_command(main))
