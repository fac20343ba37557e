"""The right loss, terms and gradients of a small case, and those that the known mistakes give: for exercise 07."""

import losses_numpy
import networks_numpy
import numpy as np
import vae_numpy
from layers_numpy import sigmoid_forward

# B images, D pixels, H hidden units, J latents


def gray(a):
    return sigmoid_forward(a)[0]


def linear(params, name, a):
    return a @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def listed(value):
    return value if isinstance(value, list) else [value]


class Objective:
    """One case with its beta and free bits: the right loss, terms and gradients, and those of the known mistakes."""

    def __init__(self, case, beta, free_bits):
        self.arguments = params, x, eps = case.draw()
        self.config, self.beta, self.free_bits, self.B = case.config, beta, free_bits, len(x)
        (self.log_likelihood, self.kl), self.cache = vae_numpy.likelihood_and_kl_forward(params, x, eps, case.config)
        self.loss, self.terms, self.grads = vae_numpy.loss_and_grads(params, x, eps, case.config, beta, free_bits)
        self.kl_j = self.kl.mean(axis=0)

    def wrong_losses(self):
        cost, kl, beta, bits = -self.log_likelihood.mean(), self.kl_j.sum(), self.beta, self.free_bits
        held = np.maximum(self.kl_j, bits).sum()
        per_image = np.maximum(self.kl, bits).sum(axis=1).mean()
        return {
            "You return the bound: the loss is what falls, -log p(x|z) + beta KL.": -self.loss,
            "You sum over the images: the loss is their mean.": self.B * self.loss,
            "Your loss takes beta and never uses it." if beta != 1 else "Your loss is not that of beta = 1.": cost + held,
            "beta stands before the likelihood: it weighs the KL.": [beta * cost + held, beta * (cost + held)],
            "Your loss takes free_bits and never uses them.": cost + beta * kl,
            "Free bits: you take the maximum of each image and then the mean. The mean over the batch comes first.":
                cost + beta * per_image,
            "Free bits: you take one maximum of the sum. Each latent has its own.":
                [cost + beta * max(kl, bits), cost + beta * max(kl, bits * len(self.kl_j))],
            "Free bits: you subtract them. It is the larger one of the KL and free_bits, not what goes beyond.":
                cost + beta * np.maximum(self.kl_j - bits, 0).sum(),
            "The KL is averaged over the latents: sum it.": cost + beta * held / len(self.kl_j),
            "The likelihood is averaged over the pixels and the KL summed: that is beta = D without saying so.":
                cost / self.config.pixels + beta * held,
            "The KL is subtracted from the loss: it is a cost.": cost - beta * held,
            "The KL is missing in the loss.": cost,
        }

    def wrong_gradients(self):
        """By sentence, each with all the gradients that the mistake gives."""
        params, x, eps = self.arguments
        config, encode_cache, _, decode_cache, likelihood_cache, _ = self.cache
        (mu, logvar), _ = networks_numpy.encode_forward(params, x, config)
        sigma = np.exp(0.5 * logvar)
        dlog_p = np.full(self.B, -1 / self.B)
        backward = (losses_numpy.bernoulli_log_likelihood_backward if config.likelihood == "bernoulli" else
                    losses_numpy.gaussian_log_likelihood_backward)
        dout = backward(dlog_p, likelihood_cache)
        dz, decoder = networks_numpy.decode_backward(dout, decode_cache)
        weight = np.where(self.kl_j > self.free_bits, self.beta / self.B, 0)

        def encoder(dmu, dlogvar):
            return decoder | networks_numpy.encode_backward(dmu, dlogvar, encode_cache)

        right_pull, right_slope = 0.5 * eps * sigma, 0.5 * np.expm1(logvar)         # dz/dlogvar, dKL/dlogvar

        def whole(weight=weight, pull=right_pull, kl_mu=mu, kl_logvar=right_slope):
            return encoder(dz + weight * kl_mu, dz * pull + weight * kl_logvar)

        dmu, dlogvar = dz + weight * mu, dz * right_pull + weight * right_slope
        names = "encoder.hidden.weight", "encoder.hidden.bias"
        h = np.tanh(linear(params, "encoder.hidden", x))
        dh = dmu @ params["encoder.mu.weight"] + dlogvar @ params["encoder.logvar.weight"]
        none, h_z = np.zeros_like(dz), np.tanh(linear(params, "decoder.hidden", vae_numpy.reparameterize(mu, logvar, eps)))
        def hidden_gradients(da):
            return dict(zip(names, (da.T @ x, da.sum(axis=0)), strict=True))

        wrong = {
            "They point uphill: these are the gradients of the bound, and the loss is its negative.":
                {name: -array for name, array in self.grads.items()},
            "They are summed over the batch: the loss is a mean, so each image counts 1/B.":
                {name: self.B * array for name, array in self.grads.items()},
            "The bias gradient is averaged over the batch a second time: sum it, the 1/B is in dout already.":
                {name: array / self.B if name.endswith("bias") else array for name, array in self.grads.items()},
            "They are divided by B twice.": {name: array / self.B for name, array in self.grads.items()},
            "The way through the KL is missing: mu and logvar act twice, through z and through the KL.": whole(weight=0),
            "The way through z is missing: mu and logvar act twice, through z and through the KL.":
                encoder(weight * mu, weight * right_slope),
            "beta is missing in the gradient of the KL.": whole(np.where(self.kl_j > self.free_bits, 1 / self.B, 0)),
            "Free bits: the gradient flows where the mean KL is at or below free_bits, which costs nothing there.":
                whole(np.full_like(weight, self.beta / self.B)),
            "Free bits: you close the gradient image by image. It is the mean over the batch that counts.":
                whole(np.where(self.kl > self.free_bits, self.beta / self.B, 0)),
            "The KL's gradient is not divided by B.": whole(self.B * weight),
            "The KL's gradient has the wrong sign.": whole(-weight),
            "The gradient of the KL by mu is mu: yours has another factor.": [whole(kl_mu=2 * mu), whole(kl_mu=0.5 * mu)],
            "The gradient of the KL by logvar is (exp(logvar) - 1) / 2: the 1/2 is missing.":
                whole(kl_logvar=2 * right_slope),
            "The gradient of the KL by logvar is (exp(logvar) - 1) / 2: the -1 is missing.":
                whole(kl_logvar=0.5 * np.exp(logvar)),
            "dz/dlogvar is eps * sigma / 2: the 1/2 is missing.": whole(pull=eps * sigma),
            "dz/dlogvar is eps * sigma / 2: eps is missing.": [whole(pull=0.5 * sigma), whole(pull=sigma)],
            "dz/dlogvar is eps * sigma / 2: sigma is missing.": [whole(pull=0.5 * eps), whole(pull=eps)],
            "dz/dlogvar is eps * sigma / 2: you take the variance for sigma.":
                [whole(pull=0.5 * eps * sigma**2), whole(pull=eps * sigma**2)],
            "Both layers, mu and logvar, stand on the hidden layer: their gradients add. One overwrites the other.":
                [whole() | {name: part[name] for name in names} for part in (encoder(dmu, none), encoder(none, dlogvar))],
            "The tanh of the encoder is missing on the way back: times 1 - h^2.":
                whole() | hidden_gradients(dh),
            "tanh' is 1 - h^2 with h the output of the tanh: you take its input.":
                whole() | hidden_gradients(dh * (1 - np.arctanh(h) ** 2)),
        }
        if config.likelihood == "bernoulli":
            logits = linear(params, "decoder.logits", h_z)
            for sentence, wrong_dout in {
                "The gradient of the log-likelihood by the logits is x - sigmoid(logits): the sigmoid is missing.":
                    (logits - x) / self.B,
                "The derivative of the sigmoid has crept in: by the logits it is x - y, which holds it already.":
                    dout * gray(logits) * (1 - gray(logits)),
                "The log-likelihood's gradient is averaged over the pixels: sum.": dout / config.pixels,
            }.items():
                wrong[sentence] = networks_numpy.decode_backward(wrong_dout, decode_cache)[1]
        else:
            mean, noise = networks_numpy.decode(params, vae_numpy.reparameterize(mu, logvar, eps), config)
            error, precision = x - mean, np.exp(-noise)
            wrong["The mean is a sigmoid: on the way back times mean (1 - mean)."] = {
                "decoder.mean.weight": dout[0].T @ h_z, "decoder.mean.bias": dout[0].sum(axis=0)}
            wrong["The gradient by the mean is the error times exp(-logvar): the variance is missing."] = \
                networks_numpy.decode_backward((-error / self.B, dout[1]), decode_cache)[1]
            wrong["The gradient by the decoder's logvar is (error^2 / variance - 1) / 2: the 1/2 is missing."] = \
                networks_numpy.decode_backward((dout[0], 2 * dout[1]), decode_cache)[1]
            wrong["The gradient by the decoder's logvar is (error^2 / variance - 1) / 2: the -1 is missing."] = \
                networks_numpy.decode_backward((dout[0], -0.5 * error**2 * precision / self.B), decode_cache)[1]
        return wrong
