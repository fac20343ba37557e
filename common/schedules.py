"""How the weight of the KL term and the step size move during training."""

import math


def kl_weight(epochs_done: float, beta: float = 1.0, warmup: float = 0.0) -> float:
    """beta, reached linearly from 0 over the first `warmup` epochs (0: constant). `epochs_done` may be a fraction.

    Warm-up gives the decoder time to use the latents before the KL term pulls them to the prior (Bowman et al. 2016).
    """
    return beta if epochs_done >= warmup else beta * epochs_done / warmup


def one_cycle(progress: float, warmup: float = 0.1) -> float:
    """The share of the peak step size after `progress` (0 to 1) of all steps: up linearly for the first `warmup` of
    them, then down to zero along half a cosine (after Smith & Topin 2018)."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def staircase(progress: float, stairs: int = 8) -> float:
    """The share of the first step size after `progress` (0 to 1) of all steps, as Burda et al. (2016) let it fall: stair
    i = 0..7 takes 3^i of the 3280 parts at 10^(-i/7) of the first step size."""
    part = progress * (3**stairs - 1) / 2                   # 3^0 + 3^1 + ... + 3^7 = 3280 parts
    i = min(stairs - 1, int(math.log(2 * part + 1, 3) + 1e-9))
    return 10 ** (-i / (stairs - 1))
