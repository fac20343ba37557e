"""Checks of exercise 05: the objective of the beta-VAE, hidden weights, schedules, free bits and their gradient."""

import math

import numpy as np
from losses_numpy import gaussian_log_likelihood_backward, gaussian_log_likelihood_forward, kl_divergence

from exercises.checks.verdict import Wrong, call, compare, task

# B images, D pixels, J latents


def some_terms(count=5, latent=3, seed=1):
    """log p(x|z) (B,) and the KL (B, J) of a batch, in nats."""
    rng = np.random.default_rng(seed)
    return rng.normal(-20, 3, count), kl_divergence(rng.normal(0, 1.3, (count, latent)), rng.normal(-1, 1, (count, latent)))


@task("05.1")
def beta_loss(theirs):
    log_likelihood, kl = some_terms()
    beta, rate = 3.5, kl.sum(axis=1)                                        # (B,)
    compare("the loss", call(theirs, log_likelihood, kl, beta), (beta * rate - log_likelihood).mean(), {
        "Your beta is never used: whatever it is, you get the loss of the plain VAE.": (rate - log_likelihood).mean(),
        "Your beta weights the likelihood: it belongs to the KL.": (rate - beta * log_likelihood).mean(),
        "Your beta weights both terms, which changes nothing but the step size: it belongs to the KL alone.":
            beta * (rate - log_likelihood).mean(),
        "You divide the KL by beta: multiply it.": (rate / beta - log_likelihood).mean(),
        "You average the KL over the latents, which is another beta, divided by J: sum over the latents.":
            [(beta * kl.mean(axis=1) - log_likelihood).mean(), beta * kl.mean(axis=1) - log_likelihood],
        "That is what one would maximize: a loss is to be small, so turn its sign.": (log_likelihood - beta * rate).mean(),
        "Your log-likelihood has the wrong sign: the more likely the image, the smaller the loss.":
            (beta * rate + log_likelihood).mean(),
        "Your KL has the wrong sign: it is a cost, and makes the loss larger.": (-beta * rate - log_likelihood).mean(),
        "You sum over the images: the loss is per image, take the mean over the batch.":
            [(beta * rate - log_likelihood).sum(), beta * kl.sum() - log_likelihood.mean(),
             beta * rate.mean() - log_likelihood.sum()],
        "You return the loss of each image: take the mean over the batch.": beta * rate - log_likelihood,
    })
    log_likelihood, kl = some_terms(4, 6, seed=2)
    for beta in (0.25, 0.0, 1.0):
        compare(f"the loss with beta = {beta:g}", call(theirs, log_likelihood, kl, beta),
                (beta * kl.sum(axis=1) - log_likelihood).mean())


@task("05.2")
def mse_loss(theirs):
    rng = np.random.default_rng(3)
    x, mean, kl = rng.random((5, 7)), rng.random((5, 7)), some_terms()[1]
    squares, absolute = (x - mean) ** 2, np.abs(x - mean)                   # (B, D)
    error, rate, beta = squares.sum(axis=1), kl.sum(axis=1), 3.5            # (B,)
    compare("the loss", call(theirs, x, mean, kl, beta), (error + beta * rate).mean(), {
        "You average both over their axis: that is sums with the weight beta D / J. Sum over pixels and over latents.":
            [squares.mean() + beta * kl.mean(), squares.mean(axis=1) + beta * kl.mean(axis=1)],
        "You average the squared error over the pixels: a beta of D in disguise. Sum over the pixels of an image.":
            [squares.mean() + beta * rate.mean(), squares.mean(axis=1) + beta * rate],
        "You average the KL over the latents: beta / J in disguise. Sum over the latents.":
            [error.mean() + beta * kl.mean(), error + beta * kl.mean(axis=1)],
        "You sum over the images: the loss is per image, take the mean over the batch.":
            [(error + beta * rate).sum(), error.sum() + beta * rate.mean(), error.mean() + beta * rate.sum()],
        "You return the loss of each image: take the mean over the batch.": error + beta * rate,
        "Your beta is never used: it multiplies the KL.": (error + rate).mean(),
        "Your beta weights the squared error: it belongs to the KL.": (beta * error + rate).mean(),
        "You halve the squared error: here it has no 1/2 (with one, every beta would mean another sigma).":
            (0.5 * error + beta * rate).mean(),
        "You take absolute differences: square them.": (absolute.sum(axis=1) + beta * rate).mean(),
        "You take the root of the squared error: leave it squared.": (np.sqrt(error) + beta * rate).mean(),
        "Your KL has the wrong sign: it is a cost.": (error - beta * rate).mean(),
        "Your squared error has the wrong sign: it is a cost.": (beta * rate - error).mean(),
    })
    x, mean, kl = rng.random((4, 3)), rng.random((4, 3)), some_terms(4, 6, seed=2)[1]
    for beta in (0.25, 0.0):
        compare(f"the loss with beta = {beta:g}", call(theirs, x, mean, kl, beta),
                (((x - mean) ** 2).sum(axis=1) + beta * kl.sum(axis=1)).mean())


def weight_of_the_kl(sigma):
    """What the KL is multiplied by once the squared error's gradient is the bound's: from the project's own gradient."""
    rng = np.random.default_rng(4)
    x, mean = rng.random((3, 5)), rng.random((3, 5))
    _, cache = gaussian_log_likelihood_forward(x, mean, np.full_like(x, 2 * math.log(sigma)))
    dmean, _ = gaussian_log_likelihood_backward(np.full(3, -1.0), cache)    # of -log p(x|z); the KL has the weight 1
    return (2 * (mean - x) / dmean).mean()


@task("05.3")
def beta_of(theirs):
    sigmas = np.array([0.1, 0.5, 1.0, 1.7])
    got = [call(theirs, float(sigma)) for sigma in sigmas]
    compare("beta, for sigma 0.1, 0.5, 1 and 1.7,", got, [weight_of_the_kl(sigma) for sigma in sigmas], {
        "The 2 of 1 / (2 sigma^2) is lost: it has to be multiplied away, too.": sigmas**2,
        "That is the weight of the squared errors in the bound. Multiply the whole by its inverse: what does the KL get?":
            [1 / (2 * sigmas**2), 0.5 / sigmas],
        "Your beta falls with sigma: the more noise the decoder allows, the less a nat of code can save, the larger beta.":
            [1 / sigmas**2, 2 / sigmas**2, 1 / sigmas],
        "You take sigma for the variance: below the squared errors stands sigma^2.": [2 * sigmas, sigmas],
        "Half of sigma^2: the 2 stands below the squared errors, so that it multiplies the KL.": sigmas**2 / 2,
        "You take the logarithm of the variance: the weight is a multiple of the variance itself.":
            [2 * np.log(sigmas), np.log(sigmas**2) / 2],
        "The constant D/2 log(2 pi sigma^2) has no part in it: it does not depend on the weights.":
            0.5 * np.log(2 * np.pi * sigmas**2),
    })


CASES = [(False, False), (True, False), (False, True), (True, True)]        # mean over pixels, mean over latents


@task("05.4")
def hidden_beta(theirs):
    D, J = 12, 5
    got = [call(theirs, D, J, *means) for means in CASES]
    compare("the hidden beta (two sums; a mean over pixels; over latents; over both)", got, [1, D, 1 / J, D / J], {
        "The wrong way round: a mean over the D pixels makes the likelihood smaller, so that the KL weighs more.":
            [[1, 1 / D, J, J / D], [1, 1 / D, J, 1 / D * J]],
        "A mean over the pixels makes the likelihood D times smaller, so that the KL weighs D times more, not less.":
            [[1, 1 / D, 1 / J, 1 / (D * J)], [1, 1 / D, 1 / J, J / D]],
        "A mean over the latents makes the KL J times smaller, not larger.": [[1, D, J, D * J], [1, D, J, D / J]],
        "You leave out the mean over the latents.": np.array([1, D, 1, D]),
        "You leave out the mean over the pixels.": np.array([1, 1, 1 / J, 1 / J]),
        "Each mean by itself is right, both at once are not: they act together.":
            [[1, D, 1 / J, other] for other in (D, 1 / J, 1, D + 1 / J, D * J)],
        "You have exchanged pixels and latents.": [[1, J, 1 / D, J / D], [1, 1 / J, D, D / J]],
    })
    compare("the hidden beta of 784 pixels and 20 latents", [call(theirs, 784, 20, *means) for means in CASES],
            [1, 784, 0.05, 39.2])


def rising(shares, warmup):
    return np.minimum(1.0, shares / warmup)


def without_warmup(theirs, *arguments):
    try:
        return call(theirs, *arguments)
    except ZeroDivisionError:
        raise Wrong("You divide by a warmup of 0: it means that the weight is 1 from the start.") from None


def schedule_ends(got):
    """Wrong for what every schedule has to keep to; got: the weights over the training, the first at share 0."""
    try:
        values = np.asarray(got, np.float64)
    except (TypeError, ValueError):
        return                                                              # compare has the words for it
    if values.ndim == 1 and np.isfinite(values).all():
        if values[0] == 1 and (values == 1).all():
            raise Wrong("Your weight is 1 all the time: it should start at 0 and rise.")
        if values[0] == 1:
            raise Wrong("Your schedule starts at 1: the weight rises from 0, so that the latents cost nothing at first.")
        if values.max() > 1 + 1e-12:
            raise Wrong(f"Your weight goes past 1, up to {values.max():.3g}: once it has come to 1 it stays there.")
        if values.min() < -1e-12:
            raise Wrong("Your weight is negative at times: that would reward the KL.")
        if values.max() < 1 - 1e-12:
            raise Wrong(f"Your schedule never reaches 1, its largest weight is {values.max():.3g}: then the bound is "
                        "never trained.")


@task("05.5")
def warm_up(theirs):
    shares = np.arange(16) / 16
    for warmup in (0.25, 0.625):
        got = [call(theirs, float(share), warmup) for share in shares]
        judge_schedule(got, rising(shares, warmup), {
            "Your weight rises all the time and never reaches 1 before the end: it should be there after `warmup`.": shares,
            "You multiply by warmup, and the weight never reaches 1: divide by it.": [shares * warmup,
                                                                                 np.minimum(1, shares * warmup)],
            "Your weight stops at `warmup` and never reaches 1: the line should be as steep as 1 / warmup.":
                np.minimum(shares, warmup),
            "You take the larger one of 1 and the line: take the smaller one.": np.maximum(1, shares / warmup),
            "Your schedule starts at 1 and falls: turn it round.": [1 - rising(shares, warmup), 1 - shares],
            "Your weight jumps from 0 to 1 at the end of the warm-up: let it rise along a line.":
                [(shares >= warmup).astype(float), (shares > warmup).astype(float)],
            "Your weight goes back to 0 after the warm-up: let it stay at 1.":
                [np.where(shares <= warmup, shares / warmup, 0), np.where(shares < warmup, shares / warmup, 0)],
            "Your weight goes past 1: put a lid on the line.": shares / warmup,
            "Your weight rises again and again: the warm-up comes once.": shares / warmup % 1,
        })
    compare("the weight where warmup is 1", [call(theirs, share, 1.0) for share in (0.0, 0.3, 0.99)], [0.0, 0.3, 0.99])
    compare("the weight where warmup is 0", [without_warmup(theirs, share, 0.0) for share in (0.0, 0.3)], [1.0, 1.0])


@task("05.6")
def cyclical(theirs):
    shares = np.arange(64) / 64
    for cycles, warmup in ((4, 0.5), (2, 0.75)):
        got = [call(theirs, float(share), cycles, warmup) for share in shares]
        inside = shares * cycles % 1                                        # how far the present cycle has come
        judge_schedule(got, rising(inside, warmup), {
            "Your weight rises once, over the whole training: it should go back to 0 at the start of each cycle.":
                [rising(shares, warmup), rising(shares * cycles, warmup)],
            "You take `warmup` as a share of the whole training: it is a share of each cycle.":
                [rising(shares % (1 / cycles), warmup), rising(inside, warmup * cycles)],
            "Your weight rises to the end of each cycle and never reaches 1: it should be there after the share `warmup` "
            "of the cycle, and stay.": [inside, np.minimum(1, inside)],
            "You take the rest (%) after the division by warmup: first find how far the cycle has come, then divide.":
                (shares * cycles / warmup) % 1,
            "You divide by the cycles where you should multiply: share * cycles counts the cycles that are over.":
                rising(shares / cycles % 1, warmup),
            "Your schedule starts at 1 and falls in each cycle: turn it round.": [1 - rising(inside, warmup), 1 - inside],
            "Your weight goes past 1: put a lid on it.": inside / warmup,
        })
    compare("the weight in a single cycle", [call(theirs, share, 1, 0.5) for share in (0.0, 0.25, 0.75)], [0.0, 0.5, 1.0])
    compare("the weight where warmup is 0", [without_warmup(theirs, share, 4, 0.0) for share in (0.0, 0.3)], [1.0, 1.0])


def judge_schedule(got, right, mistakes):
    """The named mistakes, then what every schedule has to keep to, then the numbers."""
    try:
        compare("the weight over the training", got, right, mistakes)
    except Wrong as error:
        if str(error) not in mistakes:
            schedule_ends(got)
        raise


def free_bits_case():
    """A KL (B, J) = (4, 5): two latents above half a nat, one exactly there, two below; single images on both sides."""
    kl = np.array([[0.75, 0.125, 0.25, 2.0, 0.0], [0.25, 0.25, 0.5, 0.25, 0.875], [0.625, 0.0, 0.75, 1.5, 0.125],
                   [1.375, 0.375, 0.5, 0.375, 0.25]])
    return kl, 0.5


@task("05.7")
def free_bits_cost(theirs):
    kl, free = free_bits_case()
    kl_j, right = kl.mean(axis=0), np.maximum(kl.mean(axis=0), free).sum()
    got = call(theirs, kl, free)
    if np.array_equal(got, call(theirs, kl, 100.0)):
        raise Wrong("Your free_bits is never used: the cost is the same whatever it is.")
    compare("the cost", got, right, {
        "Your maximum comes before the mean, so that each image has free bits of its own: average over the images first.":
            [np.maximum(kl, free).mean(axis=0).sum(), np.maximum(kl, free).mean(axis=0)],
        "Your maximum is over the sum of all latents, so that one may use up what is free for all: take each by itself.":
            [max(kl_j.sum(), free), np.maximum(kl.sum(axis=1), free).mean(), max(kl_j.sum(), free * kl.shape[1]),
             np.maximum(kl.sum(axis=1), free * kl.shape[1]).mean()],
        "You average over the latents: sum over them.": [np.maximum(kl_j, free).mean(), np.maximum(kl, free).mean(),
                                                         max(kl.mean(), free)],
        "You sum over the images: the threshold is for the mean over the batch.":
            [np.maximum(kl.sum(axis=0), free).sum(), np.maximum(kl, free).sum(), max(kl.sum(), free)],
        "You take the smaller one, so that a latent is free above the threshold: take the larger one.":
            [np.minimum(kl_j, free).sum(), np.minimum(kl, free).mean(axis=0).sum()],
        "You subtract the free nats: that trains the same, but the cost is the larger one of KL and free_bits.":
            np.maximum(kl_j - free, 0).sum(),
        "Latents below the threshold cost 0 with you: they cost the threshold, or the cost would jump where they cross it.":
            np.where(kl_j > free, kl_j, 0).sum(),
        "You add the free nats to the KL: take the larger one of the two.": [(kl_j + free).sum(), kl_j.sum() + free],
        "You return the cost of each latent: sum over the latents.": np.maximum(kl_j, free),
    })
    kl = some_terms(6, 11, seed=5)[1]                                       # its means: from 0.4 to 2.0 nats
    for free in (0.0, 0.9, 1.1, 100.0):
        compare(f"the cost with {free:g} free nats", call(theirs, kl, free), np.maximum(kl.mean(axis=0), free).sum())


@task("05.8")
def free_bits_gradient(theirs):
    kl, free = free_bits_case()
    B, J = kl.shape
    kl_j = kl.mean(axis=0)

    def rows(mask):
        return np.broadcast_to(mask, kl.shape) / B

    right, at_least, single = rows(kl_j > free), rows(kl_j >= free), (kl > free) / B
    compare("the gradient", call(theirs, kl, free), right, {
        "Your gradient flows where the mean is exactly at the threshold: it should flow only above it, strictly.": at_least,
        "Half of your gradient flows where the mean is exactly at the threshold: none should.": (right + at_least) / 2,
        "Your gradient flows below the threshold, too: there the cost is constant, and its derivative 0.":
            [rows(np.ones(J)), np.ones_like(kl)],
        "You compare each image by itself: the mean over the images decides, for all images of the batch at once.":
            [single, (kl >= free) / B, single * B],
        "The 1 / B is missing: one image moves the mean over the batch by only 1 / B of its KL.": [right * B, right[0] * B],
        "One row is not enough: there is a derivative for every image, (B, J), and all rows are equal.": right[0],
        "You divide by the number of latents: the cost is a sum over them.": [right / J, right * B / J],
        "Your mask is the wrong way round: the latents above the threshold are those that are paid for.":
            [rows(kl_j < free), rows(kl_j <= free)],
        "You return the KL where the derivative by it is asked for.": [right * kl, right * B * kl, right * kl_j],
        "Your gradient has the wrong sign: more KL above the threshold costs more.": -right,
    })
    kl = some_terms(6, 11, seed=5)[1]                                       # its means: from 0.4 to 2.0 nats
    for free in (0.0, 0.9, 1.1, 100.0):
        compare(f"the gradient with {free:g} free nats", call(theirs, kl, free),
                np.broadcast_to(kl.mean(axis=0) > free, kl.shape) / len(kl))
