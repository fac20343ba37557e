"""The model's shape: one configuration and one table of parameters, the same at all three levels.

    from common.config import VAEConfig, init_params, parameter_shapes
"""

import json
import math
from dataclasses import asdict, dataclass

import numpy as np

ARCHITECTURES = ("mlp", "conv")
LIKELIHOODS = ("bernoulli", "gaussian")
CONV_CHANNELS = (32, 64)        # of the two strided convolutions, mirrored in the decoder
CONV_HIDDEN = 256               # width of the dense layer between the convolutions and the two heads


class InputError(ValueError):
    """What the user gave is wrong. The message is one line: what, where, what to do. Scripts exit with code 2."""


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of. Frozen: a trained set of weights belongs to exactly one of these.

    arch          "mlp" (the paper's: one tanh hidden layer on each side) or "conv" (two strided convolutions)
    image_shape   (height, width) in pixels; an image is a row of height*width numbers in reading order
    hidden        units of the mlp's hidden layer (conv ignores it)
    latent        J, the number of latent dimensions
    likelihood    "bernoulli" (binary pixels) or "gaussian" (gray pixels in [0, 1])
    layers        hidden layers of the mlp on each side; 2 exists at level 3 only
    fixed_logvar  Gaussian only: this log-variance for every pixel instead of a learnt one (mean squared error in disguise)
    condition     C, the number of classes, whose label, one-hot, is joined to the inputs of both networks of the mlp:
                  q(z|x, y) and p(x|z, y); 0 for none

    Raises InputError where a field is out of range.
    """

    arch: str = "mlp"
    image_shape: tuple[int, int] = (28, 28)
    hidden: int = 500
    latent: int = 20
    likelihood: str = "bernoulli"
    layers: int = 1
    fixed_logvar: float | None = None
    condition: int = 0

    def __post_init__(self):
        if self.arch not in ARCHITECTURES:
            raise InputError(f"arch is {self.arch!r}: choose one of {', '.join(ARCHITECTURES)}")
        if self.likelihood not in LIKELIHOODS:
            raise InputError(f"likelihood is {self.likelihood!r}: choose one of {', '.join(LIKELIHOODS)}")
        for name in ("hidden", "latent"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}: give a whole number of at least 1")
        if self.layers not in (1, 2) or isinstance(self.layers, bool):
            raise InputError(f"layers is {self.layers!r}: choose 1 or 2")
        if self.layers == 2 and self.arch == "conv":
            raise InputError("layers is 2 with arch conv: only the mlp has a second hidden layer")
        shape = self.image_shape
        if len(shape) != 2 or not all(isinstance(side, int) and side >= 1 for side in shape):
            raise InputError(f"image_shape is {shape!r}: give (height, width), whole numbers of at least 1")
        object.__setattr__(self, "image_shape", tuple(shape))           # JSON brings it back as a list
        if self.arch == "conv" and any(side % 4 for side in shape):
            raise InputError(f"arch conv halves each side twice, and {shape[0]} x {shape[1]} does not divide by 4: "
                             "use arch mlp or pad the images")
        if self.fixed_logvar is not None:
            if self.likelihood != "gaussian":
                raise InputError("fixed_logvar is set, but the likelihood is bernoulli, which has no variance: "
                                 "use likelihood gaussian or leave it out")
            if not isinstance(self.fixed_logvar, (int, float)) or not math.isfinite(self.fixed_logvar):
                raise InputError(f"fixed_logvar is {self.fixed_logvar!r}: give a finite number")
        if not isinstance(self.condition, int) or isinstance(self.condition, bool) or self.condition < 0:
            raise InputError(f"condition is {self.condition!r}: give the number of classes, or 0 for no label")
        if self.condition and self.arch == "conv":
            raise InputError(f"condition is {self.condition} with arch conv: only the mlp takes a label, use arch mlp")

    @property
    def pixels(self) -> int:
        """D, the number of pixels of an image."""
        return self.image_shape[0] * self.image_shape[1]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "VAEConfig":
        """The configuration that to_json wrote. Raises InputError where the text is something else."""
        try:
            fields = json.loads(text)
            return cls(**fields)
        except (json.JSONDecodeError, TypeError) as error:
            raise InputError(f"this is not a VAEConfig as JSON ({error})") from error


def parameter_shapes(config: VAEConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in the order of nn.Module.state_dict(); dense weights are (out, in)."""
    latent, pixels = config.latent, config.pixels
    if config.arch == "mlp":
        hidden = config.hidden
        layers = {"encoder.hidden": (hidden, pixels + config.condition)}
        if config.layers == 2:
            layers["encoder.hidden2"] = (hidden, hidden)
        layers |= {"encoder.mu": (latent, hidden), "encoder.logvar": (latent, hidden),
                   "decoder.hidden": (hidden, latent + config.condition)}
        if config.layers == 2:
            layers["decoder.hidden2"] = (hidden, hidden)
        if config.likelihood == "bernoulli":
            layers["decoder.logits"] = (pixels, hidden)
        else:
            layers["decoder.mean"] = (pixels, hidden)
            if config.fixed_logvar is None:
                layers["decoder.logvar"] = (pixels, hidden)
    else:
        c1, c2 = CONV_CHANNELS
        height, width = config.image_shape
        flat = c2 * (height // 4) * (width // 4)
        outputs = 2 if config.likelihood == "gaussian" and config.fixed_logvar is None else 1
        layers = {
            "encoder.conv1": (c1, 1, 3, 3), "encoder.conv2": (c2, c1, 3, 3), "encoder.fc": (CONV_HIDDEN, flat),
            "encoder.mu": (latent, CONV_HIDDEN), "encoder.logvar": (latent, CONV_HIDDEN),
            "decoder.fc1": (CONV_HIDDEN, latent), "decoder.fc2": (flat, CONV_HIDDEN),
            "decoder.deconv1": (c2, c1, 3, 3), "decoder.deconv2": (c1, outputs, 3, 3),
        }
    shapes = {}
    for name, shape in layers.items():
        shapes[f"{name}.weight"] = shape
        # F.conv_transpose2d keeps its weights as (in, out, k, k), everything else as (out, in, ...)
        shapes[f"{name}.bias"] = (shape[1] if "deconv" in name else shape[0],)
    return shapes


def init_params(config: VAEConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Glorot-uniform weights and zero biases, float32.

    Drawn in NumPy at every level, so that one seed gives one model.
    """
    params = {}
    for name, shape in parameter_shapes(config).items():
        params[name] = np.zeros(shape, np.float32) if name.endswith(".bias") else glorot(shape, rng)
    return params


def glorot(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A weight of this shape, float32, from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def set_output_bias(params, config: VAEConfig, pixel_means: np.ndarray):
    """Sets a Bernoulli decoder's last bias, in place, to the logit of the training pixels' means (D,).

    The model then begins as the average image instead of gray noise (Burda et al. 2016). Means are kept within
    [0.001, 0.999], since a pixel that was never on has no logit; conv, with one bias for all pixels, takes their mean.
    """
    name = "decoder.logits.bias" if config.arch == "mlp" else "decoder.deconv2.bias"
    means = pixel_means if config.arch == "mlp" else pixel_means.mean(keepdims=True)
    means = np.clip(means, 0.001, 0.999)
    params[name][...] = np.log(means / (1 - means))


def check_one_layer(config: VAEConfig):
    """Raises InputError where levels 1 and 2 meet a model of level 3."""
    if config.layers != 1:
        raise InputError(f"layers is {config.layers}: levels 1 and 2 know one hidden layer; "
                         "layers=2 exists at level 3 only (paper/vae_paper.py)")


def check_batch(params, x, eps, config: VAEConfig):
    """Raises InputError unless x is (B, D) and eps is (B, J), both in the dtype of the params.

    Broadcasting would swallow a wrong shape, and one float64 array among float32 ones slows everything silently.
    Works for arrays and tensors alike.
    """
    if x.ndim != 2 or x.shape[1] != config.pixels or not x.shape[0]:
        raise InputError(f"x has shape {tuple(x.shape)}: the model wants (B, {config.pixels}), one row per image")
    if tuple(eps.shape) != (x.shape[0], config.latent):
        raise InputError(f"eps has shape {tuple(eps.shape)}: the model wants ({x.shape[0]}, {config.latent})")
    dtype = next(iter(params.values())).dtype
    for name, array in (("x", x), ("eps", eps)):
        if array.dtype != dtype:
            raise InputError(f"{name} is {array.dtype} but the parameters are {dtype}: convert it first")


def check_labels(y, count: int, config: VAEConfig):
    """Raises InputError unless y is (count,) whole numbers from 0 to C - 1, or None for a model without labels.

    Works for arrays and tensors alike; on a GPU the numbers stay unread, since to read them is to wait for it.
    """
    classes = config.condition
    if y is None and not classes:
        return
    if not classes:
        raise InputError("y is given, but the model takes no label (condition is 0): leave y out")
    if y is None:
        raise InputError(f"y is missing: the model wants a label from 0 to {classes - 1} for each image")
    if tuple(y.shape) != (count,):
        raise InputError(f"y has shape {tuple(y.shape)}: the model wants ({count},), one label for each image")
    if "int" not in str(y.dtype):                       # int64 and uint8 of NumPy, torch.int64
        raise InputError(f"y is {y.dtype}: labels are whole numbers, convert them to int64")
    if not getattr(y, "is_cuda", False) and bool(((y < 0) | (y >= classes)).any()):
        raise InputError(f"y runs from {int(y.min())} to {int(y.max())}: labels go from 0 to {classes - 1}")


def check_objective(beta: float, free_bits: float):
    """Raises InputError unless both weights of the objective are finite and at least 0."""
    for name, value in (("beta", beta), ("free_bits", free_bits)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} is {value}: give a finite number of at least 0")


def side_by_side(image_shape) -> str:
    """(28, 20) as "28 x 20", for messages."""
    return "{} x {}".format(*image_shape)
