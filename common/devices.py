"""Where levels 2 and 3 compute."""

import torch

from common.config import InputError


def find_device(name, dtype):
    """The torch device of that name, tried out. Raises InputError where this machine has none that knows the dtype."""
    try:
        probe = torch.zeros(1, device=name, dtype=getattr(torch, dtype))
        probe.cpu()                                         # "meta" computes nothing that could be brought back
        return probe.device
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:     # each kind of device says no in its way
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} is not to be had for {dtype} ({reason}): use --device cpu") from error
