"""Files: weights that travel between the levels, checkpoints that a run resumes from.

    params.npz       one entry per weight, named as in parameter_shapes, and `config` (VAEConfig as JSON); nothing else.
                     A model of level 3 with other weights adds `settings` (JSON): which model it is, and what it is made of
    checkpoint.npz   all that a run needs to go on: weights, optimizer state, generator state, epoch, curve

Everything is written to a temporary name and renamed, so that a file is either the old one or the new one, whole.
Nothing is ever unpickled.
"""

import json
import os
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.config import InputError, VAEConfig, parameter_shapes

# what zipfile, gzip, np.load and scipy.io.loadmat raise on bytes that are not theirs
UNREADABLE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, MemoryError,
              zlib.error, zipfile.BadZipFile, tokenize.TokenError)


@contextmanager
def atomic_write(path):
    """A binary file to write to; it takes the name `path` when the block ends well and vanishes when it does not."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text: str):
    """Writes `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def save_params(path, params: dict[str, np.ndarray], config: VAEConfig, settings: dict | None = None):
    """Writes the weights and their configuration. `params` are NumPy arrays, whatever level trained them.

    settings: {"model": its name, ...} of a model whose weights are not those of parameter_shapes, for load_settings.
    """
    told = {"config": np.array(config.to_json())}
    if settings is not None:
        told["settings"] = np.array(json.dumps(settings))
    with atomic_write(path) as file:
        np.savez(file, **told, **params)


def load_params(path) -> tuple[dict[str, np.ndarray], VAEConfig]:
    """The weights and configuration that save_params wrote, in the order of parameter_shapes.

    Raises InputError where the file is missing, is something else, or lacks, adds or misshapes a weight.
    """
    params, config, settings = load_settings(path)
    if settings is not None:
        raise InputError(f"{path} holds a {settings['model']}, no plain VAE: only its own class in paper/ loads it")
    check_params(params, config, path)
    return {name: params[name] for name in parameter_shapes(config)}, config


def load_settings(path) -> tuple[dict[str, np.ndarray], VAEConfig, dict | None]:
    """The weights, configuration and settings that save_params wrote, the weights unchecked; None: there are no settings.

    Weights that were stored in half precision, to be small, come as float32.
    Raises InputError where the file is missing or something else.
    """
    entries = _read_npz(path, "weights: params.npz of a training run")
    entries = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in entries.items()}
    if "config" not in entries or any(entries[name].ndim or entries[name].dtype.kind != "U"
                                      for name in ("config", "settings") if name in entries):
        raise InputError(f"{path} holds no configuration: give the params.npz of a training run")
    try:
        config = VAEConfig.from_json(str(entries.pop("config")))
        settings = json.loads(str(entries.pop("settings"))) if "settings" in entries else None
        if settings is not None and not isinstance(settings["model"], str):
            raise TypeError("its model is no name")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: its settings are damaged ({error}): give the params.npz of a training run") from error
    return entries, config, settings


def check_params(params: dict[str, np.ndarray], config: VAEConfig, source):
    """Raises InputError unless `params` has exactly the names and shapes of the configuration, finite and floating."""
    shapes = parameter_shapes(config)
    for name in [*shapes, *params]:
        if name not in params:
            raise InputError(f"{source} has no weight {name}: it belongs to another model than {config}")
        if name not in shapes:
            raise InputError(f"{source} has a weight {name} that {config} does not know")
        array = params[name]
        if array.shape != shapes[name]:
            raise InputError(f"{source}: {name} has shape {array.shape}, the configuration wants {shapes[name]}")
    check_numbers(params, source)


def check_numbers(params: dict[str, np.ndarray], source):
    """Raises InputError unless all weights are finite and floating."""
    for name, array in params.items():
        if array.dtype not in (np.float32, np.float64):
            raise InputError(f"{source}: {name} is {array.dtype}: weights are float32 or float64")
        if not np.isfinite(array).all():
            raise InputError(f"{source}: {name} holds NaN or infinity: the run that wrote it diverged, take another file")


def save_checkpoint(path, arrays: dict[str, dict[str, np.ndarray]], facts: dict):
    """Writes groups of named arrays ({"params": {...}, "optimizer": {...}}) and `facts`, anything that JSON can hold."""
    flat = {f"{group}/{name}": array for group, named in arrays.items() for name, array in named.items()}
    with atomic_write(path) as file:
        np.savez(file, facts=np.array(json.dumps({"facts": facts, "entries": list(flat)})), **flat)


def load_checkpoint(path) -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    """The groups of arrays and the facts that save_checkpoint wrote. Raises InputError where the file is something else."""
    entries = _read_npz(path, "a checkpoint: remove it, or start anew in another --out folder")
    try:
        told = json.loads(str(entries.pop("facts")))
        facts = told["facts"]
        if list(entries) != told["entries"] or not isinstance(facts, dict):
            raise ValueError("it is not whole")
        groups: dict[str, dict[str, np.ndarray]] = {}
        for name, array in entries.items():
            group, slash, rest = name.partition("/")
            if not slash:
                raise KeyError(name)
            groups.setdefault(group, {})[rest] = array
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a checkpoint of this program ({error}): "
                         "remove it, or start anew in another --out folder") from error
    return groups, facts


def _read_npz(path, wanted: str) -> dict[str, np.ndarray]:
    """All entries of an .npz file, never unpickled."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise InputError(f"{path} is not an .npz file: give {wanted}")
        with np.load(path, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
        for name, entry in entries.items():
            if not isinstance(entry, np.ndarray):               # a file in the archive that NumPy did not write
                raise ValueError(f"{name} is no array")
        return entries
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): give {wanted}") from error
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is damaged or holds pickled objects ({reason}): give {wanted}") from error
