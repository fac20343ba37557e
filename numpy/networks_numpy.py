"""The two networks, encoder q(z|x) and decoder p(x|z), each as an mlp (the paper's) and as a small convolutional net.

    (mu, logvar), cache = encode_forward(params, x, config)         grads     = encode_backward(dmu, dlogvar, cache)
    output, cache       = decode_forward(params, z, config)         dz, grads = decode_backward(doutput, cache)

`params` is a dict from name to array (common/config.py has the table), `grads` a dict with the same names. A conditional
model, q(z|x, y) and p(x|z, y), has the labels y (B,) behind the config.
Letters: B images, D = height*width pixels, H hidden units, J latents, C classes.
"""

import numpy as np
from layers_numpy import (
    batch_last,
    conv2d_backward,
    conv2d_backward_params,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
    linear_backward,
    linear_backward_params,
    linear_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)

from common.config import CONV_CHANNELS, check_labels, check_one_layer


def layer(params, name):
    """The weight and the bias of one layer."""
    return params[f"{name}.weight"], params[f"{name}.bias"]


def join_label(a, y, config):
    """a (B, n), and behind it the labels y (B,), one-hot: (B, n + C). A model without labels takes a as it is."""
    check_labels(y, len(a), config)
    if not config.condition:
        return a
    one_hot = np.eye(config.condition, dtype=a.dtype)[y]                               # (B, C)
    return np.concatenate([a, one_hot], axis=1)


# ---- encoder -------------------------------------------------------------------------------------------------------


def encode_forward(params, x, config, y=None):
    """The parameters of q(z|x) = N(mu, exp(logvar)), eq. 1.6. x (B, D) -> (mu (B, J), logvar (B, J)), cache."""
    check_one_layer(config)
    forward = encode_mlp_forward if config.arch == "mlp" else encode_conv_forward
    out, cache = forward(params, join_label(x, y, config), config)
    return out, (config, cache)


def encode_backward(dmu, dlogvar, cache):
    """dmu, dlogvar (B, J) -> the gradient of every encoder parameter."""
    config, cache = cache
    backward = encode_mlp_backward if config.arch == "mlp" else encode_conv_backward
    return backward(dmu, dlogvar, cache)


def encode(params, x, config, y=None):
    return encode_forward(params, x, config, y)[0]


def encode_mlp_forward(params, x, config):
    """Paper, appendix C.2: h = tanh(W3 x + b3), mu = W4 h + b4, log sigma^2 = W5 h + b5 (eq. 1.14)."""
    a, hidden_cache = linear_forward(x, *layer(params, "encoder.hidden"))              # (B, H)
    h, tanh_cache = tanh_forward(a)                                                    # (B, H)
    mu, mu_cache = linear_forward(h, *layer(params, "encoder.mu"))                     # (B, J)
    logvar, logvar_cache = linear_forward(h, *layer(params, "encoder.logvar"))         # (B, J)
    return (mu, logvar), (hidden_cache, tanh_cache, mu_cache, logvar_cache)


def encode_mlp_backward(dmu, dlogvar, cache):
    hidden_cache, tanh_cache, mu_cache, logvar_cache = cache
    dh_logvar, dlogvar_weight, dlogvar_bias = linear_backward(dlogvar, logvar_cache)   # (B, H), ...
    dh_mu, dmu_weight, dmu_bias = linear_backward(dmu, mu_cache)                       # (B, H), ...
    dh = dh_mu + dh_logvar                          # h feeds both heads: their gradients add (eq. 1.26)
    da = tanh_backward(dh, tanh_cache)                                                 # (B, H)
    dhidden_weight, dhidden_bias = linear_backward_params(da, hidden_cache)
    return {
        "encoder.hidden.weight": dhidden_weight, "encoder.hidden.bias": dhidden_bias,
        "encoder.mu.weight": dmu_weight, "encoder.mu.bias": dmu_bias,
        "encoder.logvar.weight": dlogvar_weight, "encoder.logvar.bias": dlogvar_bias,
    }


def encode_conv_forward(params, x, config):
    images = x.reshape(-1, 1, *config.image_shape)                                                   # (B, 1, h, w)
    a1, conv1_cache = conv2d_forward(images, *layer(params, "encoder.conv1"), stride=2, padding=1)   # (B, 32, h/2, w/2)
    h1, relu1_cache = relu_forward(a1)
    a2, conv2_cache = conv2d_forward(h1, *layer(params, "encoder.conv2"), stride=2, padding=1)       # (B, 64, h/4, w/4)
    h2, relu2_cache = relu_forward(a2)
    a3, fc_cache = linear_forward(h2.reshape(len(x), -1), *layer(params, "encoder.fc"))              # (B, 256)
    h3, relu3_cache = relu_forward(a3)
    mu, mu_cache = linear_forward(h3, *layer(params, "encoder.mu"))                                  # (B, J)
    logvar, logvar_cache = linear_forward(h3, *layer(params, "encoder.logvar"))                      # (B, J)
    caches = (conv1_cache, relu1_cache, conv2_cache, relu2_cache, fc_cache, relu3_cache, mu_cache, logvar_cache)
    return (mu, logvar), (h2.shape, caches)


def encode_conv_backward(dmu, dlogvar, cache):
    shape, (conv1_cache, relu1_cache, conv2_cache, relu2_cache, fc_cache, relu3_cache, mu_cache, logvar_cache) = cache
    dh_logvar, dlogvar_weight, dlogvar_bias = linear_backward(dlogvar, logvar_cache)   # (B, 256), ...
    dh_mu, dmu_weight, dmu_bias = linear_backward(dmu, mu_cache)                       # (B, 256), ...
    dh3 = dh_mu + dh_logvar
    da3 = relu_backward(dh3, relu3_cache)                                              # (B, 256)
    dh2, dfc_weight, dfc_bias = linear_backward(da3, fc_cache)                         # (B, 64*h/4*w/4), ...
    da2 = relu_backward(batch_last(dh2).reshape(shape), relu2_cache)                   # (B, 64, h/4, w/4)
    dh1, dconv2_weight, dconv2_bias = conv2d_backward(da2, conv2_cache)                # (B, 32, h/2, w/2), ...
    da1 = relu_backward(dh1, relu1_cache)
    dconv1_weight, dconv1_bias = conv2d_backward_params(da1, conv1_cache)
    return {
        "encoder.conv1.weight": dconv1_weight, "encoder.conv1.bias": dconv1_bias,
        "encoder.conv2.weight": dconv2_weight, "encoder.conv2.bias": dconv2_bias,
        "encoder.fc.weight": dfc_weight, "encoder.fc.bias": dfc_bias,
        "encoder.mu.weight": dmu_weight, "encoder.mu.bias": dmu_bias,
        "encoder.logvar.weight": dlogvar_weight, "encoder.logvar.bias": dlogvar_bias,
    }


# ---- decoder -------------------------------------------------------------------------------------------------------


def decode_forward(params, z, config, y=None):
    """The parameters of p(x|z). z (B, J) -> logits (B, D), or for the Gaussian (mean (B, D), logvar (B, D)); cache."""
    check_one_layer(config)
    forward = decode_mlp_forward if config.arch == "mlp" else decode_conv_forward
    raw, cache = forward(params, join_label(z, y, config), config)
    if config.likelihood == "bernoulli":
        return raw, (config, cache, None)
    raw_mean, logvar = raw
    mean, sigmoid_cache = sigmoid_forward(raw_mean)       # the paper's Frey Face decoder: means in (0, 1)
    return (mean, logvar), (config, cache, sigmoid_cache)


def decode_backward(dout, cache):
    """dout as decode's output -> dz (B, J), the gradient of every decoder parameter."""
    config, cache, sigmoid_cache = cache
    if config.likelihood == "gaussian":
        dmean, dlogvar = dout
        dout = sigmoid_backward(dmean, sigmoid_cache), dlogvar
    backward = decode_mlp_backward if config.arch == "mlp" else decode_conv_backward
    dz, grads = backward(dout, cache)
    return dz[:, :config.latent], grads                   # z stood in front; of the label nobody wants the gradient


def decode(params, z, config, y=None):
    return decode_forward(params, z, config, y)[0]


def decode_mean(params, z, config, y=None):
    """The mean of p(x|z), a picture to look at. z (B, J) -> (B, D) in [0, 1]."""
    out = decode(params, z, config, y)
    return sigmoid_forward(out)[0] if config.likelihood == "bernoulli" else out[0]


def decode_mlp_forward(params, z, config):
    """Paper, appendix C.1 (Bernoulli) and C.2 (Gaussian): h = tanh(W z + b), then one linear head or two."""
    a, hidden_cache = linear_forward(z, *layer(params, "decoder.hidden"))              # (B, H)
    h, tanh_cache = tanh_forward(a)                                                    # (B, H)
    if config.likelihood == "bernoulli":
        logits, logits_cache = linear_forward(h, *layer(params, "decoder.logits"))     # (B, D)
        return logits, (config, hidden_cache, tanh_cache, logits_cache)
    raw_mean, mean_cache = linear_forward(h, *layer(params, "decoder.mean"))           # (B, D)
    if config.fixed_logvar is None:
        logvar, logvar_cache = linear_forward(h, *layer(params, "decoder.logvar"))     # (B, D)
    else:
        logvar, logvar_cache = np.full_like(raw_mean, config.fixed_logvar), None
    return (raw_mean, logvar), (config, hidden_cache, tanh_cache, (mean_cache, logvar_cache))


def decode_mlp_backward(dout, cache):
    config, hidden_cache, tanh_cache, head_cache = cache
    grads = {}
    if config.likelihood == "bernoulli":
        dh, grads["decoder.logits.weight"], grads["decoder.logits.bias"] = linear_backward(dout, head_cache)
    else:
        draw_mean, dlogvar = dout
        mean_cache, logvar_cache = head_cache
        dh, grads["decoder.mean.weight"], grads["decoder.mean.bias"] = linear_backward(draw_mean, mean_cache)
        if config.fixed_logvar is None:
            dh_logvar, grads["decoder.logvar.weight"], grads["decoder.logvar.bias"] = linear_backward(dlogvar, logvar_cache)
            dh = dh + dh_logvar
    da = tanh_backward(dh, tanh_cache)                                                 # (B, H)
    dz, grads["decoder.hidden.weight"], grads["decoder.hidden.bias"] = linear_backward(da, hidden_cache)
    return dz, grads


def decode_conv_forward(params, z, config):
    height, width = config.image_shape
    small = (len(z), CONV_CHANNELS[1], height // 4, width // 4)
    up = {"stride": 2, "padding": 1, "output_padding": 1}
    a1, fc1_cache = linear_forward(z, *layer(params, "decoder.fc1"))                                 # (B, 256)
    h1, relu1_cache = relu_forward(a1)
    a2, fc2_cache = linear_forward(h1, *layer(params, "decoder.fc2"))                                # (B, 64*h/4*w/4)
    h2, relu2_cache = relu_forward(batch_last(a2))
    a3, deconv1_cache = conv_transpose2d_forward(h2.reshape(small), *layer(params, "decoder.deconv1"), **up)
    h3, relu3_cache = relu_forward(a3)                                                               # (B, 32, h/2, w/2)
    out, deconv2_cache = conv_transpose2d_forward(h3, *layer(params, "decoder.deconv2"), **up)       # (B, 1 or 2, h, w)
    caches = (fc1_cache, relu1_cache, fc2_cache, relu2_cache, deconv1_cache, relu3_cache, deconv2_cache)
    flat = np.ascontiguousarray(out.reshape(len(z), out.shape[1], -1))                               # (B, 1 or 2, D)
    if config.likelihood == "bernoulli":
        return flat[:, 0], (config, caches)
    logvar = flat[:, 1] if config.fixed_logvar is None else np.full_like(flat[:, 0], config.fixed_logvar)
    return (flat[:, 0], logvar), (config, caches)


def decode_conv_backward(dout, cache):
    config, (fc1_cache, relu1_cache, fc2_cache, relu2_cache, deconv1_cache, relu3_cache, deconv2_cache) = cache
    if config.likelihood == "bernoulli":
        channels = [dout]
    else:
        channels = list(dout) if config.fixed_logvar is None else [dout[0]]
    dout = np.stack(channels, axis=1).reshape(-1, len(channels), *config.image_shape)  # (B, 1 or 2, h, w)
    grads = {}
    dh3, grads["decoder.deconv2.weight"], grads["decoder.deconv2.bias"] = conv_transpose2d_backward(dout, deconv2_cache)
    da3 = relu_backward(dh3, relu3_cache)                                              # (B, 32, h/2, w/2)
    dh2, grads["decoder.deconv1.weight"], grads["decoder.deconv1.bias"] = conv_transpose2d_backward(da3, deconv1_cache)
    da2 = relu_backward(dh2.reshape(len(dh2), -1), relu2_cache)                        # (B, 64*h/4*w/4)
    dh1, grads["decoder.fc2.weight"], grads["decoder.fc2.bias"] = linear_backward(da2, fc2_cache)
    da1 = relu_backward(dh1, relu1_cache)                                              # (B, 256)
    dz, grads["decoder.fc1.weight"], grads["decoder.fc1.bias"] = linear_backward(da1, fc1_cache)
    return dz, grads
