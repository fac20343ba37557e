"""What is trained, and how: the options of level 3."""

from argparse import BooleanOptionalAction
from dataclasses import dataclass

from common.cli import option
from common.config import ARCHITECTURES, LIKELIHOODS, InputError
from common.data import BINARIZE, DATASETS
from common.schedules import one_cycle, staircase

# The models, and which of the options below are theirs alone
MODELS = {"vae": (), "wake-sleep": (), "full-vb": (), "iwae": ("k",), "autoencoder": (), "conditional-vae": (),
          "beta-vae": ("beta", "gamma", "capacity", "free_bits", "warmup", "cycles"),
          "vq-vae": ("codes", "ema"), "hierarchical-vae": ("depth", "warmup"), "ladder-vae": ("depth", "warmup"),
          "pixel-vae": ("beta", "gamma", "capacity", "free_bits", "warmup", "cycles")}
UNUSED = {"vq-vae": ("arch", "hidden", "layers", "latent"),              # its size is in --codes, its networks are its own
          "hierarchical-vae": ("layers",), "ladder-vae": ("layers",)}    # two hidden layers everywhere
LAYERED = {"latent": 16, "hidden": 200, "schedule": "one-cycle"}         # two latents leave an upper layer nothing to say
MODEL_DEFAULTS = {"hierarchical-vae": LAYERED, "ladder-vae": LAYERED}    # where they are not those of the options below
SCHEDULES = {"constant": lambda progress: 1.0, "one-cycle": one_cycle, "staircase": staircase}


@dataclass(frozen=True)
class Plan:
    """How a model is trained; also the options of the command line."""

    epochs: int = option(20, "passes over the training images; digits and frey: 200", type=int)
    batch_size: int = option(100, "images per step", type=int)
    optimizer: str = option("adam", "step rule of torch.optim", choices=("adam", "adagrad"))
    lr: float = option(1e-3, "step size; with a schedule, its largest; digits: 0.01", type=float)
    schedule: str = option("constant", "step size over time: constant, one-cycle (up, then down a cosine), staircase "
                           "(Burda et al. 2016)", choices=tuple(SCHEDULES))
    adam_eps: float = option(1e-8, "Adam's eps", type=float)
    matmul: str = option("highest", "inside float32 matrix products, as torch.set_float32_matmul_precision has it: "
                         "high is TF32 on GPUs, medium bfloat16 where the processor has units for it",
                         choices=("highest", "high", "medium"))
    weight_decay: float = option(0.0, "times the weights, added to their gradient", type=float)
    weight_prior: bool = option(False, "MAP: add the prior N(0, I) on all weights, as the paper does", action="store_true")
    patience: int = option(0, "stop after so many evaluations without a better validation loss, and take the best weights "
                           "(0: never)", type=int)
    evaluate_every: int = option(1, "epochs between evaluations", type=int)
    seed: int = option(0, "seed of weights, shuffling, binarization and noise", type=int)

    def __post_init__(self):
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a whole number of at least 1")
        for name in ("adam_eps", "weight_decay", "patience", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}: give a number of at least 0")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"lr is {self.lr}: give a positive step size, such as 0.001")


@dataclass(frozen=True)
class Subject:
    """Which images, and the sizes of the networks: what every command that trains asks."""

    data: str = option("digits", "data set", choices=DATASETS)
    data_file: str | None = option(None, "your own images, an .npz file with x_train (N, h, w); with --data npz")
    data_dir: str | None = option(None, "folder of the data sets (default: $VAE_DATA, else data/)")
    binarize: str | None = option(None, "gray pixels to binary ones (default: dynamic for Bernoulli, none for Gaussian)",
                                  choices=BINARIZE)
    arch: str = option("mlp", "tanh layers or convolutions", choices=ARCHITECTURES)
    likelihood: str = option("bernoulli", "p(x|z): Bernoulli or Gaussian pixels", choices=LIKELIHOODS)
    hidden: int = option(500, "units of a hidden layer of the mlp", type=int)
    latent: int = option(2, "latent dimensions", type=int)


@dataclass(frozen=True)
class Choice(Subject):
    """What is trained, on what, and where."""

    model: str = option("vae", "the model", choices=tuple(MODELS))
    layers: int = option(1, "hidden layers of the mlp on each side, 1 or 2", type=int)
    fixed_logvar: float | None = option(None, "Gaussian only: this log-variance for every pixel", type=float)
    k: int | None = option(None, "importance samples of --model iwae (default: 5)", type=int)
    beta: float | None = option(None, "beta-vae, pixel-vae: weight of the KL term (default: 1, the VAE)", type=float)
    gamma: float | None = option(None, "beta-vae, pixel-vae: the KL term costs gamma |KL - capacity| instead", type=float)
    capacity: float | None = option(None, "beta-vae, pixel-vae: that capacity, in nats (default: 0)", type=float)
    free_bits: float | None = option(None, "beta-vae, pixel-vae: nats of KL per latent that cost nothing (default: 0)",
                                     type=float)
    depth: int | None = option(None, "hierarchical-vae, ladder-vae: layers of latents (default: 2)", type=int)
    warmup: float | None = option(None, "beta-vae, pixel-vae, hierarchical-vae, ladder-vae: share of training, or of "
                                  "each of --cycles, over which the KL's weight (or the capacity) rises from 0 (default: "
                                  "0, ladder-vae 0.1)", type=float)
    cycles: int | None = option(None, "beta-vae, pixel-vae: cycles of warm-up (default: 1)", type=int)
    codes: int | None = option(None, "vq-vae: codes in the codebook (default: 128)", type=int)
    ema: bool | None = option(None, "vq-vae: the codes follow moving averages (the default), or with --no-ema the gradient",
                              action=BooleanOptionalAction)
    dtype: str = option("float32", "precision of the arithmetic", choices=("float32", "float64"))
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    out: str | None = option(None, "folder for the results (default: runs/paper-MODEL-DATA-LATENT)")
    resume: bool = option(False, "go on from the checkpoint in --out", action="store_true")

    def settings(self) -> dict:
        """Those of the options that are the model's own, where they were given. Raises InputError for another model's."""
        own = {}
        for name in sorted({name for names in MODELS.values() for name in names}):
            if getattr(self, name) is None:
                continue
            if name not in MODELS[self.model]:
                theirs = " or ".join(model for model, names in MODELS.items() if name in names)
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} goes with --model {theirs}, not "
                                 f"{self.model}: leave it out")
            own[name] = getattr(self, name)
        return own
