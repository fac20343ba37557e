"""What a training run of level 3 needs to go on as if it had never stopped: weights, optimizer, generator, curve."""

from dataclasses import asdict

import torch

from common.checkpoints import load_checkpoint, save_checkpoint
from common.config import InputError


def keep(path, plan, model, optimizer, generator, rows, best):
    """Writes all that `restore` needs to go on as if nothing had happened."""
    def arrays(named):
        return {name: tensor.cpu().numpy() for name, tensor in named.items()}

    state = {f"{i}.{name}": value for i, each in optimizer.state_dict()["state"].items() for name, value in each.items()}
    groups = {"params": arrays(model.state_dict()), "optimizer": arrays(state), "best": arrays(best or {}),
              "generator": arrays({"state": generator.get_state()})}
    save_checkpoint(path, groups, {"plan": asdict(plan), "model": described(model), "rows": rows})


def restore(path, plan, model, optimizer, generator):
    """Takes model, optimizer and generator back to the checkpoint; returns its rows and its best weights, or None."""
    groups, facts = load_checkpoint(path)
    try:
        for name, value in asdict(plan).items():
            # with a schedule every step depends on where the end is
            longer = name == "epochs" and plan.schedule == "constant" and not hasattr(model, "progress")
            if value != facts["plan"][name] and not longer:
                raise InputError(f"{path} is of a run with {name} {facts['plan'][name]}, not {value}: leave that as it "
                                 "was, or start anew in another folder")
        if facts.get("model", described(model)) != described(model):
            raise InputError(f"{path} is of {facts['model']}, not of {described(model)}: leave that as it was, or start "
                             "anew in another folder")
        tensors = {group: {name: torch.from_numpy(array) for name, array in named.items()}
                   for group, named in groups.items()}
        model.load_state_dict(tensors["params"])
        state = {}
        for name, tensor in tensors["optimizer"].items():
            index, _, name = name.partition(".")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(tensors["generator"]["state"])
        best = tensors.get("best")
        return list(facts["rows"]), {name: tensor.to(generator.device) for name, tensor in best.items()} if best else None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no checkpoint of this model ({reason}): remove it, or start anew in another folder"
                         ) from error


def described(model) -> str:
    """A model's class and settings, such as IWAE(config=..., k=5): two with the same weights may mean different things."""
    settings = (f"{name}={value}" for name, value in vars(model).items() if not name.startswith("_") and name != "training")
    return f"{type(model).__name__}({', '.join(settings)})"
