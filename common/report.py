"""Writes the tables of the READMEs, English and Korean, from results files, so that no number in them was typed.

    python common/report.py                         # tables from the files in results/
    python common/report.py runs/a runs/b           # first keeps these finished runs in results/levels.json

A table stands between <!-- NAME: written by ... --> and <!-- end of NAME -->; a test holds that the two agree.
"""

import argparse
import csv
import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

from common.checkpoints import atomic_write, write_text
from common.cli import Options, run_command
from common.config import InputError
from common.korean import korean_table

ROOT = Path(__file__).resolve().parent.parent
LEVELS, BENCHMARK, FILMSTRIP = (ROOT / "results" / name for name in ("levels.json", "benchmark.json", "filmstrip.png"))
SCRIPTS = {"numpy": "numpy/train_numpy.py", "lowlevel": "pytorch_lowlevel/train_lowlevel.py"}
TABLES = {                                          # README -> the tables in it
    "README.md": ("levels", "benchmark"),
    "numpy/README.md": ("levels",),
    "pytorch_lowlevel/README.md": ("benchmark",),
    "README.ko.md": ("levels", "benchmark"),
    "numpy/README.ko.md": ("levels",),
    "pytorch_lowlevel/README.ko.md": ("benchmark",),
}


def record(folder: Path) -> dict:
    """What a finished run's folder says: its command, its last epoch, its time, its machine."""
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
        rows = list(csv.DictReader((folder / "metrics.csv").read_text("utf-8").splitlines()))
        options, last = told["options"], rows[-1]
        if int(last["epoch"]) != options["epochs"]:
            raise ValueError(f"it stopped after epoch {last['epoch']} of {options['epochs']}")
        words = ["python", SCRIPTS[told["level"]]]
        for item in fields(Options):                                    # in their order, those that were written
            if item.name in set(options["given"]) - {"data_dir", "out", "resume"}:
                words += ["--" + item.name.replace("_", "-"), str(options[item.name])]
        return {
            "command": shlex.join(words), "level": told["level"], "options": options,
            **{name: float(last[name]) for name in ("test_elbo", "test_log_likelihood", "test_kl", "train_elbo")},
            "seconds": sum(float(row["seconds"]) for row in rows), "device": options["device"], "machine": told["machine"],
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder} is not the folder of a finished run ({error}): give the --out of one") from error


def keep(folders):
    """Adds runs to results/levels.json; a run with the same command replaces the older one.

    The filmstrip of the first command, python numpy/train_numpy.py, becomes the front page's picture.
    """
    runs = {run["command"]: run for run in (read(LEVELS) if LEVELS.exists() else [])}
    for folder in folders:
        run = record(Path(folder))
        runs[run["command"]] = run
        if run["command"] == f"python {SCRIPTS['numpy']}":
            with atomic_write(FILMSTRIP) as file:
                file.write((Path(folder) / "filmstrip.png").read_bytes())
    write_text(LEVELS, json.dumps(sorted(runs.values(), key=lambda run: run["command"]), indent=2) + "\n")


def read(path: Path):
    """A results file. Raises InputError where it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): take it back from git") from error


def levels_table() -> list[str]:
    lines = ["| command | epochs | test ELBO | = log p(x\\|z) | − KL | training time |", "|---|--:|--:|--:|--:|--:|"]
    runs = read(LEVELS)
    for run in runs:
        minutes, seconds = divmod(round(run["seconds"]), 60)
        lines.append(f"| `{run['command']}` | {run['options']['epochs']} | **{run['test_elbo']:.2f}** | "
                     f"{run['test_log_likelihood']:.2f} | {run['test_kl']:.2f} | {minutes}:{seconds:02d} |")
    machines = sorted({f"{run['machine']['cores']} cores of an {run['machine']['processor']}" for run in runs})
    lines += ["", f"Nats per image, one noise draw per test image; time in minutes:seconds on {' or '.join(machines)}."]
    return lines


def benchmark_table() -> list[str]:
    told = read(BENCHMARK)
    speed = told["images_per_second"]
    lines = ["| one training step, images/s | " + " | ".join(f"{arch} | × eager | × ceiling" for arch in speed) + " |",
             "|---|" + "--:|--:|--:|" * len(speed)]
    for name in next(iter(speed.values())):
        cells = [f"{rates[name]:,.0f} | {rates[name] / rates['torch eager']:.2f} | "
                 f"{rates[name] / rates['matrix products alone']:.2f}" for rates in speed.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    races = []
    if "loop" in told:
        example, ours = told["loop"]["the well-known example"], told["loop"]["level 3"]
        races.append(("training loop of 784-400-20 with its data, images/s; the well-known example: DataLoader, PIL",
                      f"{example:,.0f}", f"{ours:,.0f}", f"{ours / example:.2f} × the speed"))
        ours = told["loop"]["level 3, --matmul medium"]
        races.append(("the same with matrix products in bfloat16 inside, `--matmul medium`", f"{example:,.0f}",
                      f"{ours:,.0f}", f"{ours / example:.2f} × the speed"))
    if "bound" in told:
        plain, ours = told["bound"]["plain loop"], told["bound"]["level 3"]
        ratio = f"{ours['seconds'] / plain['seconds']:.2f} × the time" if plain["reached"] and ours["reached"] else "—"
        races.append(("training of 784-500-20 to a test ELBO of −100, dynamic MNIST",
                      *(f"{each['seconds']:.0f} s, {each['epochs']} epochs" if each["reached"] else "not reached"
                        for each in (plain, ours)), ratio))
    if "log_p" in told:
        plain, ours = told["log_p"]["one block"], told["log_p"]["level 3"]
        races.append((f"log p(x) of 784-200-200-50, {told['log_p']['samples']:,} samples; plain: all in one block",
                      *(f"{each['seconds'] * 1e3:.0f} ms an image" for each in (plain, ours)),
                      f"{ours['seconds'] / plain['seconds']:.2f} × the time"))
    if races:
        lines += ["", "| level 3 beside plain PyTorch | plain | level 3 | |", "|---|--:|--:|--:|"]
        lines += ["| " + " | ".join(race) + " |" for race in races]
    measured = [told, *(told[name] for name in ("loop", "bound", "log_p") if name in told)]
    machines = dict.fromkeys("{cores} cores of an {processor}, NumPy {numpy}, torch {torch}".format(**part["machine"])
                             for part in measured)
    lines += ["", f"Batch {told['batch']}, float32, {' and '.join(machines)}; `python tests/benchmark.py` prints yours."]
    return lines


def tables_of(readme: str) -> dict[str, list[str]]:
    """The tables of one of the READMEs, by name, in its language."""
    tables = {name: {"levels": levels_table, "benchmark": benchmark_table}[name]() for name in TABLES[readme]}
    return in_language_of(readme, tables)


def in_language_of(readme: str, tables: dict[str, list[str]]) -> dict[str, list[str]]:
    """These tables, in Korean for a page NAME.ko.md."""
    return {name: korean_table(lines) if readme.endswith(".ko.md") else lines for name, lines in tables.items()}


def with_tables(text: str, tables: dict[str, list[str]]) -> str:
    """The README's text with these tables written anew. Raises InputError where a table's place is missing."""
    for name, lines in tables.items():
        place = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        block = "\n".join(lines)
        text, found = place.subn(lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}", text)
        if found != 1:
            raise InputError(f"the place of the table {name} stands {found} times in a README: put it back once")
    return text


def write_tables(readmes, tables_of):
    """Writes tables_of(readme) into each README that is there. Raises InputError, at the end, where one is missing."""
    missing = [readme for readme in readmes if not (ROOT / readme).exists()]
    for readme in readmes:
        if readme not in missing:
            path = ROOT / readme
            write_text(path, with_tables(path.read_text("utf-8"), tables_of(readme)))
            print(f"written: {readme}")
    if missing:
        raise InputError(f"missing, so that its tables were not written: {', '.join(missing)}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="FOLDER", help="--out folders of finished runs, to be kept")
    options = parser.parse_args(argv)
    if options.runs:
        keep(options.runs)
    write_tables(TABLES, tables_of)


if __name__ == "__main__":
    sys.exit(run_command(main))
