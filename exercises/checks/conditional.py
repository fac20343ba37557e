"""Checks of exercise 06: the label one-hot, behind the inputs of both networks; its exchange; how often it is obeyed."""

import math

import numpy as np
from layers_numpy import sigmoid_forward
from losses_numpy import bernoulli_log_likelihood, kl_divergence
from networks_numpy import decode, decode_mean, encode
from networks_numpy import join_label as joined_label
from vae_numpy import elbo_terms, reparameterize

from common.config import VAEConfig, parameter_shapes
from exercises.checks.verdict import Wrong, call, compare, number, pair, task

# B images, D pixels, H hidden units, J latents, C classes


def labeled_case(dtype=np.float64):
    """A small model, D, H, J, C = 7, 4, 3, 6, with 5 images, their labels, other labels, and noise (B, J)."""
    config = VAEConfig(image_shape=(1, 7), hidden=4, latent=3, condition=6)
    rng = np.random.default_rng(1)
    params = {name: rng.normal(0, 0.7, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    x = (rng.random((5, 7)) < 0.5).astype(dtype)
    y, wanted = np.array([3, 0, 5, 2, 3]), np.array([1, 4, 0, 3, 2])
    return config, params, x, y, wanted, rng.standard_normal((5, 3)).astype(dtype)


def fits(theirs, *arguments, advice):
    """call(theirs, ...), with advice where two arrays do not fit together."""
    try:
        return call(theirs, *arguments)
    except ValueError as error:
        if any(word in str(error) for word in ("mismatch", "match exactly", "broadcast")):
            raise Wrong(f"{advice} (NumPy says: {error}.)") from error
        raise


def without_label(params, config):
    """The weights with the label's columns at zero, by the network that loses them: "encoder", "decoder"."""
    weights = {}
    for network, inputs in (("encoder", config.pixels), ("decoder", config.latent)):
        weight = params[f"{network}.hidden.weight"].copy()
        weight[:, inputs:] = 0
        weights[network] = params | {f"{network}.hidden.weight": weight}
    return weights


def shifts(y, config):
    """The labels y as they come out where they are counted from 1."""
    return [(y - 1) % config.condition, (y + 1) % config.condition]


@task("06.1")
def one_hot(theirs):
    y, classes = np.array([3, 0, 5, 2, 3]), 6
    right = (y[:, None] == np.arange(classes)).astype(np.float64)           # (5, 6)
    try:
        got = call(theirs, y, classes)
    except IndexError as error:
        raise Wrong(f"Your code stopped with IndexError: {error}. Labels count from 0: with C = 6 they run from 0 to 5, "
                    "and all of them have a place.") from error
    if np.shape(got) == right.shape and not np.array_equal(got, right) and (np.sort(got, axis=1)[:, -1] == 1).all() \
            and (np.sum(got, axis=1) == 1).all() and np.array_equal(np.sum(got, axis=0), right.sum(axis=0)):
        raise Wrong("Each label has its 1, but in the row of another image: row b is the code of y[b].")
    compare("the one-hot code", got, right, {
        "Your 1 stands one place too far to the left: labels count from 0, so that label 0 has the first place.":
            [right[:, [*range(1, classes), 0]], np.eye(classes, k=-1)[y]],
        "Your 1 stands one place too far to the right: labels count from 0, so that label 0 has the first place.":
            [right[:, [classes - 1, *range(classes - 1)]], np.eye(classes, k=1)[y]],
        "You leave a place for a label C: labels run from 0 to C - 1, which makes C places.":
            [np.eye(classes + 1)[y], np.eye(classes + 1)[y + 1]],
        "That is (C, B), a column for each image: images are rows, (B, C).": right.T,
        "You return the labels themselves: each wants a row with a single 1.": [y, y[:, None]],
        "You write the label where the 1 belongs: then label 5 shouts five times as loud as label 1, and label 0 is mute.":
            right * y[:, None],
        "That is one-cold: a 1 in the place of the label, and zeros elsewhere.": 1 - right,
        "Only as many places as the largest label here needs: the number of classes is given.": right[:, :int(y.max())],
    })
    few = np.array([1, 0])
    compare("the one-hot code of two labels among six classes", call(theirs, few, classes), np.eye(classes)[few], {
        "Your code has as many places as the labels that occur: a batch without a 9 still needs a place for it. "
        "Use the number of classes.": [np.eye(2)[few], np.eye(2)]})


@task("06.2")
def join_label(theirs):
    config, _, x, y, _, _ = labeled_case()
    a = x + np.arange(7) / 10                                               # no column is like another
    right = joined_label(a, y, config)
    codes = right[:, 7:]
    compare("the joined array", fits(theirs, a, y, config.condition, advice="The two parts need as many rows, B: join the "
                                     "one-hot label (B, C), along axis 1."), right, {
        "You append the label as a number: then a 5 counts five times as much as a 1, though labels have no order. Append "
        "its one-hot code.": np.column_stack([a, y]),
        "The label stands before the row: put it behind, where the weights expect it.": np.concatenate([codes, a], axis=1),
        "Your labels are counted from 1: label 0 has the first place.":
            [np.concatenate([a, np.roll(codes, step, axis=1)], axis=1) for step in (-1, 1)],
        "You return the label alone: the row a comes first.": codes,
        "You return the row alone: the label is missing.": a,
        "You write the label into the last columns of a: nothing of a may be lost, the array grows to n + C columns.":
            np.concatenate([a[:, :1], codes], axis=1),
    })
    for dtype in (np.float32, np.float64):
        got = call(theirs, a.astype(dtype), y, config.condition)
        if got.dtype != dtype:
            raise Wrong(f"Your array is {got.dtype} though a is {np.dtype(dtype)}: bring the one-hot code to a.dtype "
                        "first, or all that follows is computed in the wider one.")


@task("06.3")
def encode_given(theirs):
    config, params, x, y, _, _ = labeled_case()
    advice = ("The sizes do not fit. encoder.hidden.weight is (H, D + C): join the label to x first, and transpose the "
              "weight.")
    got = pair(fits(theirs, params, x, y, config, advice=advice), "mu and logvar")
    right, alone = encode(params, x, config, y), encode(without_label(params, config)["encoder"], x, config, y)
    shifted = [encode(params, x, config, labels) for labels in shifts(y, config)]
    weight, bias = params["encoder.hidden.weight"], params["encoder.hidden.bias"]
    a = joined_label(x, y, config) @ weight.T + bias
    in_front = np.tanh(np.roll(joined_label(x, y, config), config.condition, axis=1) @ weight.T + bias)
    hidden = {
        "comes out as if the hidden layer had no tanh.": a,
        "comes out as if the hidden layer ended in a ReLU; these weights have a tanh.": np.maximum(a, 0),
        "comes out as if the label stood before x: it belongs behind it.": in_front,
        "comes out as if the hidden layer had no bias.": np.tanh(a - bias),
    }
    for i, what in enumerate(("mu", "logvar")):
        name = what.capitalize() if what == "mu" else "Your logvar"
        head, head_bias = params[f"encoder.{what}.weight"], params[f"encoder.{what}.bias"]
        compare(what, got[i], right[i], {
            f"{name} is that of an encoder which does not know the label: only the decoder would be told.": alone[i],
            f"{name} belongs to another label: labels count from 0.": [each[i] for each in shifted],
            "You return the two the other way round: mu first, then logvar.": right[1 - i],
            "You return sigma: the encoder gives logvar, the logarithm of the variance.": np.exp(0.5 * right[i]),
            "You return the variance: the encoder gives its logarithm.": np.exp(right[i]),
            f"A ReLU sits on {what}: both heads are linear.": np.maximum(right[i], 0),
            f"The bias of the head {what} is missing.": right[i] - head_bias,
            **{f"{name} {sentence}": h @ head.T + head_bias for sentence, h in hidden.items()},
        })


@task("06.4")
def decode_given(theirs):
    config, params, _, y, _, z = labeled_case()
    advice = ("The sizes do not fit. decoder.hidden.weight is (H, J + C): the decoder is told the label too, so join it to "
              "z first, and transpose the weight.")
    got = fits(theirs, params, z, y, config, advice=advice)
    right, alone = decode(params, z, config, y), decode(without_label(params, config)["decoder"], z, config, y)
    weight, bias = params["decoder.hidden.weight"], params["decoder.hidden.bias"]
    head, head_bias = params["decoder.logits.weight"], params["decoder.logits.bias"]
    a = joined_label(z, y, config) @ weight.T + bias
    in_front = np.tanh(np.roll(joined_label(z, y, config), config.condition, axis=1) @ weight.T + bias)
    compare("the logits", got, right, {
        "Your decoder does not know the label, only the encoder would: whatever is asked for, it draws what z says.": alone,
        "Your logits belong to another label: labels count from 0.": [decode(params, z, config, each)
                                                                      for each in shifts(y, config)],
        "You return probabilities: return the logits, before the sigmoid.": sigmoid_forward(right)[0],
        "It comes out as if the label stood before z: it belongs behind it.": in_front @ head.T + head_bias,
        "It comes out as if the hidden layer had no tanh.": a @ head.T + head_bias,
        "It comes out as if the hidden layer ended in a ReLU; these weights have a tanh.":
            np.maximum(a, 0) @ head.T + head_bias,
        "A tanh sits on the logits: the last layer is linear.": np.tanh(right),
        "The bias of the hidden layer is missing.": np.tanh(a - bias) @ head.T + head_bias,
        "The bias of the logits is missing.": right - head_bias,
    })


@task("06.5")
def at_every_label(theirs):
    config, params, _, _, _, z = labeled_case()
    labels = np.arange(config.condition)
    right = np.stack([decode_mean(params, z, config, np.full(len(z), label)) for label in labels], axis=1)      # (5, 6, 7)
    logits = np.log(right / (1 - right))
    advice = "Each z meets each label: give the decoder as many labels as rows, np.full(len(z), c)."
    compare("the grid", fits(theirs, params, z, config, advice=advice), right, {
        "You return logits: send them through the sigmoid, for a picture.": logits,
        "The first axis is the label, (C, R, D): a row of the picture is one z, so stack along axis 1.":
            [right.swapaxes(0, 1), logits.swapaxes(0, 1)],
        "Your array has the right shape and its rows and labels mixed up: each row is to hold one z. Stack along axis 1 "
        "instead of reshaping.": [right.swapaxes(0, 1).reshape(right.shape), logits.swapaxes(0, 1).reshape(right.shape)],
        "Your columns begin with label 1 and end with label 0: labels count from 0.": np.roll(right, -1, axis=1),
        "Label 0 is missing: labels run from 0 to C - 1.": right[:, 1:],
        "The last label is missing: labels run from 0 to C - 1.": right[:, :-1],
        "All your columns are the same label: give each column its own.":
            [np.repeat(right[:, [label]], config.condition, axis=1) for label in labels],
        "All your columns come out alike, because your decoder does not know the label.":
            [np.repeat(decode_mean(without_label(params, config)["decoder"], z, config, np.full(len(z), 0))[:, None],
                       config.condition, axis=1)],
        "You return one image after the other, (R * C, D): keep rows and columns apart, (R, C, D).":
            [right.reshape(-1, config.pixels), right.swapaxes(0, 1).reshape(-1, config.pixels)],
    })


@task("06.6")
def swap_label(theirs):
    config, params, x, y, wanted, _ = labeled_case()

    def swapped(read_as, write_as):
        return decode_mean(params, encode(params, x, config, read_as)[0], config, write_as)

    right, (mu, logvar) = swapped(y, wanted), encode(params, x, config, y)
    deaf = without_label(params, config)
    compare("the swapped images", call(theirs, params, x, y, wanted, config), right, {
        "You encode with the label that is wanted, which the image does not show: the style is misread. Encode with y.":
            swapped(wanted, wanted),
        "You decode with the old label: that is a reconstruction. Decode with the label that is wanted.": swapped(y, y),
        "The two labels are the wrong way round: encode with y, decode with wanted.": swapped(wanted, y),
        "You return logits: send them through the sigmoid.": np.log(right / (1 - right)),
        "The style is the posterior mean here: you send the logvar through the decoder.":
            decode_mean(params, logvar, config, wanted),
        "Your labels are counted from 1.": [swapped(*labels) for read_as in (y, *shifts(y, config))
                                            for write_as in (wanted, *shifts(wanted, config))
                                            for labels in [(read_as, write_as)]
                                            if labels[0] is not y or labels[1] is not wanted],
        "Your encoder does not know the label, only your decoder does.":
            decode_mean(params, encode(deaf["encoder"], x, config, y)[0], config, wanted),
        "Your decoder does not know the label, only your encoder does.": decode_mean(deaf["decoder"], mu, config, wanted),
        "Your picture forgets the style: z is 0 for every image.": decode_mean(params, 0 * mu, config, wanted),
    })


def follows(theirs, reading, seen, arguments):
    """Do the images that are shown to the classifier follow u? At u = 0 every pixel is white, at u = 1 every one black."""
    shown = []
    for level in (0, 1):
        params, z, y, u, config = arguments
        call(theirs, reading, params, z, y, 0 * u + level, config)
        shown.append(seen[-1])
    return bool(np.all(shown[0] != shown[1]))


@task("06.7")
def share_obeyed(theirs):
    config, params, *_ = labeled_case()
    rng = np.random.default_rng(7)
    z, u = rng.standard_normal((40, 3)), rng.random((40, 7))
    y = rng.integers(config.condition, size=40)
    seen = []

    def reading(images):
        """Reads the label off the first pixels: it can be tried on anything, and every pixel counts."""
        seen.append(np.asarray(images))
        return (seen[-1] @ np.array([1, 2, 3, 1, 2, 3, 1])).astype(int) % config.condition

    mean, deaf = decode_mean(params, z, config, y), without_label(params, config)["decoder"]
    images = (u < mean).astype(np.float64)
    hits, (left, other) = reading(images) == y, shifts(y, config)
    seen.clear()
    got = call(theirs, reading, params, z, y, u, config)
    if not seen:
        raise Wrong("Your function never asks `read` what it sees: give it the images that were drawn.")
    shown = seen[-1]
    if shown.shape == mean.shape:
        for sentence, wrong in {
            "You show the classifier the probabilities, gray means: draw the pixels, 1 where u is smaller.": mean,
            "You show the classifier rounded probabilities: draw the pixels, 1 where u is smaller.": mean > 0.5,
            "You show the classifier logits: take the sigmoid, and then draw the pixels.": np.log(mean / (1 - mean)),
            "Your pixels are 1 where they should be 0: a pixel is 1 where u is smaller than its probability.": 1 - images,
            "You compare u with the logits: take the sigmoid first.": u < np.log(mean / (1 - mean)),
            "You show the classifier the noise u: compare it with the probabilities.": u,
            "Your labels are counted from 1.": u < decode_mean(params, z, config, left),
            "Your labels are counted from 1, or shifted.": u < decode_mean(params, z, config, other),
            "Your decoder does not know the label.": u < decode_mean(deaf, z, config, y),
        }.items():
            if np.allclose(shown, wrong) and not np.allclose(shown, images):
                raise Wrong(sentence)
    if not np.array_equal(shown, images) and not follows(theirs, reading, seen, (params, z, y, u, config)):
        raise Wrong("You draw the pixels with noise of your own: use u, so that the same call gives the same number.")
    compare("the images that you give to `read`", shown.astype(np.float64), images)
    compare("the share", got, hits.mean(), {
        "You count the hits: divide by their number, for a share.": hits.sum(),
        "You return hit or miss of each draw: return their mean.": hits,
        "That is the share of draws which are read as something else.": 1 - hits.mean(),
        "You return percent: return a share, from 0 to 1.": 100 * hits.mean(),
        "You return what was read: compare it with the labels that were asked for.": reading(images),
    })
    number("the share", got, 0, 1)


@task("06.8")
def bound_given(theirs):
    config, params, x, y, _, eps = labeled_case()
    advice = ("The sizes do not fit. The target is the image alone, x (B, D): the one-hot label is no pixel, and the "
              "decoder has no logit for it.")
    got = fits(theirs, params, x, y, eps, config, advice=advice)
    (mu, logvar), deaf = encode(params, x, config, y), without_label(params, config)
    log_likelihood, kl = elbo_terms(params, x, eps, config, y)

    def with_z(z):
        return bernoulli_log_likelihood(decode(params, z, config, y), x) - kl

    def bound(weights, labels=y):
        first, second = elbo_terms(weights, x, eps, config, labels)
        return first - second

    forgetful = bernoulli_log_likelihood(decode(deaf["decoder"], reparameterize(mu, logvar, eps), config, y), x) - kl
    per_pixel, per_latent = log_likelihood / config.pixels, kl / config.latent
    compare("the bound", got, log_likelihood - kl, {
        "The label is counted in the target: it was given, so the log-likelihood is that of the D pixels alone.":
            log_likelihood - kl - math.log(2) * config.condition,
        "The label is given to the encoder only: the decoder is told too.": [forgetful, bound(deaf["decoder"])],
        "The label is given to the decoder only: the encoder is told too.": bound(deaf["encoder"]),
        "Your labels are counted from 1.": [bound(params, labels) for labels in shifts(y, config)],
        "The KL is added: it is subtracted from the log-likelihood.": log_likelihood + kl,
        "That is the negative of the bound, a loss: return the bound.": kl - log_likelihood,
        "The KL is missing.": log_likelihood,
        "You return the KL alone.": kl,
        "You average the log-likelihood over the pixels and sum the KL: sum both.": per_pixel - kl,
        "You average the KL over the latents: sum it.": [log_likelihood - per_latent, per_pixel - per_latent],
        "You sum the KL over the images too: sum it over the latents, axis 1.":
            log_likelihood - kl_divergence(mu, logvar).sum(),
        "You return the KL for each latent: sum it over the latents, axis 1.":
            [log_likelihood[:, None] - kl_divergence(mu, logvar)],
        "You return the mean over the images: return the bound of each.": [(log_likelihood - kl).mean()],
        "You return the sum over the images: return the bound of each.": [(log_likelihood - kl).sum()],
        "You scale the noise by the variance exp(logvar): sigma is exp(logvar / 2).": with_z(mu + np.exp(logvar) * eps),
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).": with_z(mu + eps),
        "You scale the noise by logvar: sigma is exp(logvar / 2).": with_z(mu + logvar * eps),
        "You decode the posterior mean: without noise it is no bound. z = mu + sigma * eps.": with_z(mu),
        "You give the decoder the noise alone: z = mu + sigma * eps.": with_z(eps),
    })
