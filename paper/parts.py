"""An experiment in parts: each is computed once and kept, so that a run that was stopped can go on.

    results = run_parts({"vae": Part(train_one, {"k": 1}, cost=2)}, folder, device="cpu", workers=2)

A part is a function at the top of a module, called as function(work, **arguments), that returns what JSON can hold. `work`
is what it needs of its surroundings: the device, the data, a place for its checkpoint, and somewhere to tell how far it is.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.checkpoints import write_text
from common.config import InputError
from common.data import load_dataset


@dataclass(frozen=True)
class Part:
    """function(work, **arguments); cost: what it takes beside the other parts, in any unit, to tell the time left."""

    function: Callable
    arguments: dict = field(default_factory=dict)
    cost: float = 1.0


@dataclass(frozen=True)
class Work:
    """What a part may use.

    device      "cpu" or a CUDA device
    checkpoint  a path for paper.train_paper.train; it is removed when the part is done
    dataset     dataset(name): a data set of common.data
    progress    progress(share): tells which share of this part is done, 0 to 1; call it often
    notes       a path for `note` and `recall`; removed when the part is done
    weights     a path for model.save, where someone may want the trained model: reproduce.py puts them into one archive
    """

    device: str
    checkpoint: Path
    dataset: Callable
    progress: Callable
    notes: Path | None = None
    weights: Path | None = None

    def note(self, found: dict):
        """Keeps what the part has found so far, anything that JSON can hold."""
        write_text(self.notes, json.dumps(found))

    def recall(self) -> dict:
        """What was noted before a stop, else {}. Raises InputError where the file is damaged."""
        if not self.notes.exists():
            return {}
        try:
            return dict(json.loads(self.notes.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.notes} is damaged ({error}): remove its folder and start anew") from error


def run_parts(parts: dict[str, Part], folder: Path, device="cpu", data_dir=None, workers=1, say=lambda shares: None):
    """{key: {"result", "seconds"}} of all parts; those that lie in `folder` already are taken from there.

    With two or more workers, parts run side by side in processes of their own, the cores shared out among them: these
    models are small, and two of them with one core each learn faster than one with two.
    say({key: share done}) is called every now and then. Raises InputError where a part does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [key for key in parts if not (folder / f"{key}.json").exists()]
    workers = min(workers, len(todo))
    shares = {key: 1.0 for key in parts if key not in todo}
    if workers < 2:
        for key in todo:
            def tell(share, key=key):
                shares[key] = share
                say(shares)
            run_part(key, parts[key], folder, device, data_dir, tell)
    else:
        context = multiprocessing.get_context("spawn")              # a fork would inherit OpenMP's threads, which hang
        told = {key: context.Value("d", shares.get(key, 0.0)) for key in parts}
        errors, running = context.SimpleQueue(), {}
        try:
            while todo or running:
                while todo and len(running) < workers:
                    key = todo.pop(0)
                    arguments = (key, parts[key], folder, device, data_dir, told[key], errors, workers)
                    running[key] = context.Process(target=run_in_process, args=arguments, daemon=True)
                    running[key].start()
                time.sleep(0.2)
                say({key: share.value for key, share in told.items()})
                for key in [key for key, process in running.items() if process.exitcode is not None]:
                    if running.pop(key).exitcode:
                        raise InputError(f"{key} was stopped: run again with --resume" if errors.empty() else errors.get())
        finally:
            for process in running.values():
                process.terminate()
    return {key: json.loads((folder / f"{key}.json").read_text("utf-8")) for key in parts}


def run_part(key, part, folder, device, data_dir, tell):
    """Computes one part and keeps it as KEY.json; its seconds count what an earlier, stopped run spent on it."""
    clock, start, saved = folder / f"{key}.seconds", time.perf_counter(), 0.0
    before = float(clock.read_text()) if clock.exists() else 0.0

    def progress(share):
        nonlocal saved
        seconds = time.perf_counter() - start
        if seconds > saved + 5:                                     # seconds between writes
            write_text(clock, str(before + seconds))
            saved = seconds
        tell(share)

    checkpoint = folder / f"{key}.checkpoint.npz"
    notes, weights = folder / f"{key}.notes.json", folder / f"{key}.params.npz"
    work = Work(device, checkpoint, lambda name: load_dataset(name, data_dir), progress, notes, weights)
    result = part.function(work, **part.arguments)
    told = {"result": result, "seconds": before + time.perf_counter() - start}
    write_text(folder / f"{key}.json", json.dumps(told))
    for path in (checkpoint, notes, clock):
        path.unlink(missing_ok=True)
    tell(1.0)


def run_in_process(key, part, folder, device, data_dir, told, errors, workers):
    """run_part in a child: errors go back as text, and without its parent it does not go on."""
    parent = multiprocessing.parent_process()
    if device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))

    def tell(share):
        if not parent.is_alive():                                   # it was killed
            sys.exit(1)
        told.value = share

    try:
        run_part(key, part, folder, device, data_dir, tell)
    except InputError as error:
        errors.put(str(error))
        sys.exit(2)
    except KeyboardInterrupt:                                       # Ctrl-C reaches all; the parent says what is to say
        sys.exit(130)
