"""The two networks, encoder q(z|x) and decoder p(x|z), each as an mlp (the paper's) and as a small convolutional net.

    mu, logvar = encode(params, x, config)
    output     = decode(params, z, config)

The forward half of numpy/networks_numpy.py in the same order, on tensors we hold: no nn.Module, no cache, no backward.
`params` is a dict from name to tensor (common/config.py has the table). A conditional model, q(z|x, y) and p(x|z, y), has
the labels y (B,) behind the config.
Letters: B images, D = height*width pixels, H hidden units, J latents, C classes.
"""

import torch
import torch.nn.functional as F

from common.config import CONV_CHANNELS, check_labels, check_one_layer


def layer(params, name):
    """The weight and the bias of one layer."""
    return params[f"{name}.weight"], params[f"{name}.bias"]


def join_label(a, y, config):
    """a (B, n), and behind it the labels y (B,), one-hot: (B, n + C). A model without labels takes a as it is."""
    check_labels(y, len(a), config)
    if not config.condition:
        return a
    one_hot = F.one_hot(y.long(), config.condition).to(a.dtype)                        # (B, C)
    return torch.cat([a, one_hot], dim=1)


# ---- encoder -------------------------------------------------------------------------------------------------------


def encode(params, x, config, y=None):
    """The parameters of q(z|x) = N(mu, exp(logvar)). x (B, D) -> mu (B, J), logvar (B, J)."""
    check_one_layer(config)
    forward = encode_mlp if config.arch == "mlp" else encode_conv
    return forward(params, join_label(x, y, config), config)


def encode_mlp(params, x, config):
    """Paper, appendix C.2: h = tanh(W3 x + b3), mu = W4 h + b4, log sigma^2 = W5 h + b5."""
    a = F.linear(x, *layer(params, "encoder.hidden"))                                  # (B, H)
    h = torch.tanh(a)                                                                  # (B, H)
    mu = F.linear(h, *layer(params, "encoder.mu"))                                     # (B, J)
    logvar = F.linear(h, *layer(params, "encoder.logvar"))                             # (B, J)
    return mu, logvar


def encode_conv(params, x, config):
    images = x.reshape(-1, 1, *config.image_shape)                                     # (B, 1, h, w)
    a1 = F.conv2d(images, *layer(params, "encoder.conv1"), stride=2, padding=1)        # (B, 32, h/2, w/2)
    h1 = torch.relu(a1)
    a2 = F.conv2d(h1, *layer(params, "encoder.conv2"), stride=2, padding=1)            # (B, 64, h/4, w/4)
    h2 = torch.relu(a2)
    a3 = F.linear(h2.reshape(len(x), -1), *layer(params, "encoder.fc"))                # (B, 256)
    h3 = torch.relu(a3)
    mu = F.linear(h3, *layer(params, "encoder.mu"))                                    # (B, J)
    logvar = F.linear(h3, *layer(params, "encoder.logvar"))                            # (B, J)
    return mu, logvar


# ---- decoder -------------------------------------------------------------------------------------------------------


def decode(params, z, config, y=None):
    """The parameters of p(x|z). z (B, J) -> logits (B, D), or for the Gaussian mean (B, D), logvar (B, D)."""
    check_one_layer(config)
    forward = decode_mlp if config.arch == "mlp" else decode_conv
    raw = forward(params, join_label(z, y, config), config)
    if config.likelihood == "bernoulli":
        return raw
    raw_mean, logvar = raw
    return torch.sigmoid(raw_mean), logvar                # the paper's Frey Face decoder: means in (0, 1)


def decode_mean(params, z, config, y=None):
    """The mean of p(x|z), a picture to look at. z (B, J) -> (B, D) in [0, 1]."""
    out = decode(params, z, config, y)
    return torch.sigmoid(out) if config.likelihood == "bernoulli" else out[0]


def decode_mlp(params, z, config):
    """Paper, appendix C.1 (Bernoulli) and C.2 (Gaussian): h = tanh(W z + b), then one linear head or two."""
    a = F.linear(z, *layer(params, "decoder.hidden"))                                  # (B, H)
    h = torch.tanh(a)                                                                  # (B, H)
    if config.likelihood == "bernoulli":
        return F.linear(h, *layer(params, "decoder.logits"))                           # (B, D)
    raw_mean = F.linear(h, *layer(params, "decoder.mean"))                             # (B, D)
    if config.fixed_logvar is None:
        logvar = F.linear(h, *layer(params, "decoder.logvar"))                         # (B, D)
    else:
        logvar = torch.full_like(raw_mean, config.fixed_logvar)
    return raw_mean, logvar


def decode_conv(params, z, config):
    height, width = config.image_shape
    small = (len(z), CONV_CHANNELS[1], height // 4, width // 4)
    up = {"stride": 2, "padding": 1, "output_padding": 1}
    a1 = F.linear(z, *layer(params, "decoder.fc1"))                                    # (B, 256)
    h1 = torch.relu(a1)
    a2 = F.linear(h1, *layer(params, "decoder.fc2"))                                   # (B, 64*h/4*w/4)
    h2 = torch.relu(a2)
    a3 = F.conv_transpose2d(h2.reshape(small), *layer(params, "decoder.deconv1"), **up)
    h3 = torch.relu(a3)                                                                # (B, 32, h/2, w/2)
    out = F.conv_transpose2d(h3, *layer(params, "decoder.deconv2"), **up)              # (B, 1 or 2, h, w)
    flat = out.reshape(len(z), out.shape[1], -1)                                       # (B, 1 or 2, D)
    if config.likelihood == "bernoulli":
        return flat[:, 0]
    logvar = flat[:, 1] if config.fixed_logvar is None else torch.full_like(flat[:, 0], config.fixed_logvar)
    return flat[:, 0], logvar
