"""The figures and tables of the paper, and of those that came after it: one name, one command, one result.

    python paper/reproduce.py list                              # every name, and what it gave so far
    python paper/reproduce.py nll --preset quick                # seconds, a small model on digits: a first look, in runs/
    python paper/reproduce.py nll                               # --preset cpu: an hour, or two, on two cores
    python paper/reproduce.py nll --preset gpu --device cuda    # as the paper has it
    python paper/reproduce.py report                            # writes the tables of the READMEs from paper/results/

A run that is stopped goes on with --resume. cpu and gpu write paper/results/NAME.PRESET.json and .png, and the weights of
the models, where they are of use, to runs/NAME.PRESET.weights.zip. --samples gives curves another length.
"""

import argparse
import importlib
import json
import sys
import time
import zipfile
from pathlib import Path

from common.checkpoints import atomic_write, write_text
from common.cli import run_command
from common.config import InputError
from common.devices import find_device
from common.report import in_language_of, write_tables
from common.run import machine
from paper.parts import run_parts

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "paper" / "results"
PAPER = {                                               # name -> its module in paper/experiments/
    "nll": "nll",
    "estimators": "estimator_variance",
    "reparameterizations": "reparameterization_gradients",
    "toy": "toy_posteriors",
    "ae-vs-vae": "autoencoder_and_vae",
    "fig2-mnist": "figure2_mnist",
    "fig2-frey": "figure2_frey",
    "fig3": "figure3",
    "fig4": "figure4",
    "fig5": "figure5",
    "frey-walk": "frey_walk",
    "full-vb": "weight_uncertainty",
}
FAMILY = {
    "conditional": "conditional_digits",
    "quadrants": "quadrants",
    "vq-vae": "vector_quantized",
    "hierarchy": "hierarchy",
    "beta-vae": "sprites_disentangled",
    "rate-distortion": "rate_distortion",
    "collapse": "collapse",
}
EXPERIMENTS = PAPER | FAMILY
TABLES = {"reproduction": PAPER, "family": FAMILY}      # the tables of the READMEs, and whose results stand in them
PRESETS = ("quick", "cpu", "gpu")


def experiment(name):
    """The module of an experiment. It holds PRESETS (settings by preset), parts(settings), draw(path, results) and
    rows(results) -> [(what, the paper's figure, ours), ...]."""
    return importlib.import_module(f"paper.experiments.{EXPERIMENTS[name]}")


def reproduce(name, preset, device="cpu", data_dir=None, out=None, resume=False, samples=None):
    """Runs an experiment and writes its JSON and PNG; returns the JSON's path. samples: training samples of each curve,
    for the figures that count them."""
    module = experiment(name)
    find_device(device, "float32")
    out = Path(out) if out else Path("runs") if preset == "quick" or samples is not None else RESULTS
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a folder")
    folder = Path("runs") / "reproduce" / f"{name}.{preset}"
    settings = module.PRESETS[preset]
    if samples is not None:
        if "training_samples" not in settings or samples < 1:
            raise InputError(f"--samples {samples}: give at least 1, and only with a name that counts training samples")
        settings = settings | {"training_samples": samples}
    told, begun = {"settings": settings, "device": device}, folder / "begun.json"
    unfinished = folder.exists() and any(path.name not in ("begun.json", "seconds") for path in folder.iterdir())
    if folder.exists() and not resume and (preset == "quick" or not unfinished):
        clear(folder)
    elif unfinished and not resume:
        raise InputError(f"{folder} holds a run that was stopped: go on with --resume, or remove that folder")
    if begun.exists() and json.loads(begun.read_text("utf-8")) != json.loads(json.dumps(told)):
        raise InputError(f"{folder} holds a run with other settings or on another device: remove it and start anew")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        write_text(begun, json.dumps(told))
        parts = module.parts(settings)
        progress = Progress(name, {key: part.cost for key, part in parts.items()}, folder / "seconds")
        workers = machine()["cores"] if device == "cpu" and preset != "quick" else 1
        done = run_parts(parts, folder, device, data_dir, workers, progress)
        results = {
            "name": name, "preset": preset, "settings": settings, "device": device_name(device), "machine": machine(),
            "seconds": progress.seconds(), "parts": done,
        }
        path = out / f"{name}.{preset}"
        module.draw(path.with_name(path.name + ".png"), results)
        write_text(path.with_name(path.name + ".json"), json.dumps(results, indent=1) + "\n")
        archive = keep_weights(folder, Path("runs") / f"{name}.{preset}.weights.zip")
    except KeyboardInterrupt:
        print(f"\nstopped: {folder} holds what is done; the same command with --resume goes on", file=sys.stderr)
        raise
    except OSError as error:
        raise InputError(f"cannot write into {error.filename or out} ({error.strerror or error}): make room, or give "
                         "another folder with --out") from error
    clear(folder)
    for what, paper, ours in module.rows(results):
        print(f"{what}: {ours}" + f"   (paper: {paper})" * bool(paper))
    print(", ".join(map(str, [f"{path}.json", f"{path}.png", *archive])))
    return path.with_name(path.name + ".json")


def keep_weights(folder: Path, path: Path) -> list[Path]:
    """One archive of the params.npz that the parts left in the folder, if any did; stored, not compressed."""
    weights = sorted(folder.glob("*.params.npz"))
    if weights:
        with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
            for each in weights:
                archive.write(each, each.name)
    return [path] * bool(weights)


def clear(folder: Path):
    """Removes what run_parts and reproduce left in the folder, and the folder where nothing else is in it."""
    for path in folder.iterdir():
        if path.suffix in (".json", ".seconds", ".npz") or path.name == "seconds":
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def device_name(device) -> str:
    import torch
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)


class Progress:
    """One line every few seconds: the share of each part that is done, the time gone and the time left."""

    def __init__(self, name, costs: dict[str, float], clock: Path):
        self.name, self.costs, self.clock = name, costs, clock
        self.before = float(clock.read_text()) if clock.exists() else 0.0       # seconds of an earlier, stopped run
        self.start = self.said = time.perf_counter()
        self.at_start = None
        self.tty = sys.stderr.isatty()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def __call__(self, shares: dict[str, float]):
        now = time.perf_counter()
        done = sum(cost * shares.get(key, 0.0) for key, cost in self.costs.items()) / sum(self.costs.values())
        self.at_start = done if self.at_start is None else self.at_start
        if now < self.said + (1 if self.tty else 30):
            return
        self.said = now
        write_text(self.clock, str(self.seconds()))
        gone = now - self.start
        left = clock_time(gone * (1 - done) / (done - self.at_start)) if done > self.at_start else "unknown"
        parts = ", ".join(f"{key} {shares.get(key, 0.0):.0%}" for key in self.costs)
        line = f"{self.name}: {parts} | {clock_time(gone)} gone, {left} left"
        print(f"\r{line}\033[K" if self.tty else line, end="" if self.tty else "\n", file=sys.stderr, flush=True)


def clock_time(seconds: float) -> str:
    """90 as "1:30"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# ---- what the results say ----------------------------------------------------------------------------------------------


def command(results) -> str:
    words = f"python paper/reproduce.py {results['name']}"
    if results["preset"] != "cpu":
        words += f" --preset {results['preset']}"
    samples = results["settings"].get("training_samples")
    if samples != experiment(results["name"]).PRESETS[results["preset"]].get("training_samples"):
        words += f" --samples {samples}"
    return words + " --device cuda" * (results["device"] != "cpu")


def where(results) -> str:
    """The machine of a result, in words."""
    told = results["machine"]
    return results["device"] if results["device"] != "cpu" else f"{told['cores']} cores, {told['processor']}"


def all_results(names=tuple(EXPERIMENTS)):
    """(name, results) of every file in paper/results/ of these names, in their order, the largest preset last."""
    for name in names:
        for preset in PRESETS:
            path = RESULTS / f"{name}.{preset}.json"
            if path.exists():
                try:
                    yield name, json.loads(path.read_text("utf-8"))
                except ValueError as error:
                    raise InputError(f"{path} is damaged ({error}): take it back from git") from error


def front_table(names=tuple(EXPERIMENTS)) -> list[str]:
    """What a paper gives a number for, beside what we have: one table "paper | ours | command | time on", as Markdown."""
    lines = ["| what | paper | ours | command | time on |", "|---|--:|--:|---|---|"]
    for name, results in all_results(names):
        for what, paper, ours in experiment(name).rows(results):
            if any(sign.isdigit() for sign in paper):
                lines.append(row(what, paper, f"**{ours}**", f"`{command(results)}`", time_on(results)))
    if len(lines) == 2:
        return ["Nothing that has a figure in its paper was run so far."]
    return lines + ["", "Time in minutes:seconds, for all rows of a command together."]


def all_tables(names=tuple(EXPERIMENTS)) -> list[str]:
    """Everything: a table for each command, its time above it, as Markdown."""
    lines = []
    for name, results in all_results(names):
        lines += [f"`{command(results)}`, {time_on(results)}:", "", "| what | paper | ours |", "|---|--:|--:|"]
        lines += [row(what, paper, f"**{ours}**") for what, paper, ours in experiment(name).rows(results)] + [""]
    return lines + ["Time in minutes:seconds."] if lines else ["Nothing was run so far."]


def row(*cells) -> str:
    """A row of a table; a bar inside a cell, as in p(x|z), would end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def time_on(results) -> str:
    return f"{clock_time(results['seconds'])} on {where(results)}"


READMES = {"README.md": front_table, "paper/README.md": all_tables,
           "README.ko.md": front_table, "paper/README.ko.md": all_tables}


def tables_of(readme) -> dict[str, list[str]]:
    """The tables of one of READMES, by name, as lines of Markdown in its language."""
    return in_language_of(readme, {table: READMES[readme](names) for table, names in TABLES.items()})


def show_list():
    seen = {}
    for name, results in all_results():
        seen.setdefault(name, []).append(results)
    for name in EXPERIMENTS:
        print(f"{name:<20}{experiment(name).__doc__.splitlines()[0]}")
        for results in seen.get(name, []):
            print(f"    {results['preset']}: {time_on(results)}")
            for what, paper, ours in experiment(name).rows(results):
                print(f"        {what}: {ours}" + f"   (paper: {paper})" * bool(paper))
        if name not in seen:
            print("    not run yet")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("name", choices=("list", "report", *EXPERIMENTS), metavar="NAME",
                        help=f"list, report, or one of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="how much (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--data-dir", help="folder of the data sets (default: $VAE_DATA, else data/)")
    parser.add_argument("--out", metavar="FOLDER", help="where JSON and PNG go (default: paper/results/; quick: runs/)")
    parser.add_argument("--samples", type=int, help="training samples of a curve, instead of the preset's; into runs/")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    options = parser.parse_args(argv)
    if options.name == "list":
        show_list()
    elif options.name == "report":
        write_tables(READMES, tables_of)
    else:
        reproduce(options.name, options.preset, options.device, options.data_dir, options.out, options.resume,
                  options.samples)


if __name__ == "__main__":
    sys.exit(run_command(main))
