"""How the weight of the KL term moves during training."""


def kl_weight(epochs_done: float, beta: float = 1.0, warmup: float = 0.0) -> float:
    """beta, reached linearly from 0 over the first `warmup` epochs (0: constant). `epochs_done` may be a fraction.

    Warm-up gives the decoder time to use the latents before the KL term pulls them to the prior (Bowman et al. 2016).
    """
    return beta if epochs_done >= warmup else beta * epochs_done / warmup
