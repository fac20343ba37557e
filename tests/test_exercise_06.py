"""Exercise 06: every named mistake is answered with a sentence of its own."""

import math

import numpy as np
import pytest
from losses_numpy import bernoulli_log_likelihood, kl_divergence
from networks_numpy import decode, decode_mean, encode
from networks_numpy import join_label as joined_label
from vae_numpy import elbo_terms

from exercises.checks.conditional import labeled_case, shifts, without_label
from exercises.checks.verdict import SOLVED, TASKS, WRONG

config, params, x, y, wanted, eps = labeled_case()
deaf = without_label(params, config)
C, J, D = config.condition, config.latent, config.pixels


def codes(y, classes):
    return np.eye(classes)[y]


def behind(a, y, classes):
    return np.concatenate([a, codes(y, classes)], axis=1)


def layer(p, name, a):
    return a @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def heads(p, h):
    return layer(p, "encoder.mu", h), layer(p, "encoder.logvar", h)


def encoder(joined):
    """An encoder with something else as its input."""
    return lambda p, x, y, c: heads(p, np.tanh(layer(p, "encoder.hidden", joined(x, y, c))))


def decoder(joined, last=lambda a: a, hidden=np.tanh):
    return lambda p, z, y, c: last(layer(p, "decoder.logits", hidden(layer(p, "decoder.hidden", joined(z, y, c)))))


def in_front(a, y, c):
    return np.concatenate([codes(y, c.condition), a], axis=1)


def from_1(a, y, c):
    return joined_label(a, (y - 1) % c.condition, c)


def zeros(a, y, c):
    return np.concatenate([a, np.zeros((len(a), c.condition))], axis=1)


def padded(p, z, y, c):
    """Logits for the label too, all 0: a target with the label in it fits."""
    return np.concatenate([decode(p, z, c, y), np.zeros((len(z), c.condition))], axis=1)


def grid(p, z, c, labels=None, axis=1, of=decode_mean):
    return np.stack([of(p, z, c, np.full(len(z), label)) for label in labels or range(c.condition)], axis=axis)


def swapped(p, x, read_as, write_as, c, of=decode_mean):
    return of(p, encode(p, x, c, read_as)[0], c, write_as)


def drawn(p, z, y, u, c):
    return (u < decode_mean(p, z, c, y)).astype(float)


def bound(p, x, y, eps, c):
    log_likelihood, kl = elbo_terms(p, x, eps, c, y)
    return log_likelihood - kl


def bound_at(p, x, y, c, z):
    return bernoulli_log_likelihood(decode(p, z, c, y), x) - kl_divergence(*encode(p, x, c, y)).sum(axis=1)


def sizes(p, x, y, eps, c):
    """x was joined once and for all, and is the target too."""
    x = behind(x, y, c.condition)
    mu, logvar = heads(p, np.tanh(layer(p, "encoder.hidden", x)))
    logits = decode(p, mu + np.exp(logvar / 2) * eps, c, y)
    return bernoulli_log_likelihood(logits, x) - kl_divergence(mu, logvar).sum(axis=1)


def with_label_in_the_target(p, x, y, eps, c):
    mu, logvar = encode(p, x, c, y)
    logits = padded(p, mu + np.exp(logvar / 2) * eps, y, c)
    return (bernoulli_log_likelihood(logits, behind(x, y, c.condition)) - kl_divergence(mu, logvar).sum(axis=1))


def in_two_networks(encoder_weights, decoder_weights):
    def wrong(p, x, y, eps, c):
        mu, logvar = encode(encoder_weights, x, c, y)
        z = mu + np.exp(logvar / 2) * eps
        return bernoulli_log_likelihood(decode(decoder_weights, z, c, y), x) - kl_divergence(mu, logvar).sum(axis=1)
    return wrong


def own_noise(read, p, z, y, u, c):
    return float((read(drawn(p, z, y, np.random.default_rng(5).random(u.shape), c)) == y).mean())


def reading(images):
    """What share_obeyed shows the classifier, and what it makes of the answer."""
    return lambda read, p, z, y, u, c: float((read(images(p, z, y, u, c)) == y).mean())


MISTAKES = [
    ("one_hot", lambda y, classes: np.eye(classes)[y - 1], "too far to the left"),
    ("one_hot", lambda y, classes: np.eye(classes, k=-1)[y], "too far to the left"),
    ("one_hot", lambda y, classes: np.eye(classes)[y + 1], "Labels count from 0"),
    ("one_hot", lambda y, classes: np.eye(classes, k=1)[y], "too far to the right"),
    ("one_hot", lambda y, classes: np.eye(classes)[(y + 1) % classes], "too far to the right"),
    ("one_hot", lambda y, classes: np.eye(classes + 1)[y], "a place for a label C"),
    ("one_hot", lambda y, classes: np.eye(classes)[y].T, "images are rows"),
    ("one_hot", lambda y, classes: y, "the labels themselves"),
    ("one_hot", lambda y, classes: np.eye(classes)[y] * y[:, None], "shouts"),
    ("one_hot", lambda y, classes: 1 - np.eye(classes)[y], "one-cold"),
    ("one_hot", lambda y, classes: np.eye(y.max() + 1)[y], "places as the labels that occur"),
    ("one_hot", lambda y, classes: np.eye(len(np.unique(y)))[y], "Labels count from 0"),
    ("one_hot", lambda y, classes: np.eye(classes)[np.sort(y)], "in the row of another image"),
    ("one_hot", lambda y, classes: np.eye(classes)[y] / 2, "0.5 times"),
    ("join_label", lambda a, y, classes: np.column_stack([a, y]), "as a number"),
    ("join_label", lambda a, y, classes: np.concatenate([codes(y, classes), a], axis=1), "stands before the row"),
    ("join_label", lambda a, y, classes: behind(a, y - 1, classes), "counted from 1"),
    ("join_label", lambda a, y, classes: behind(a, (y + 1) % classes, classes), "counted from 1"),
    ("join_label", lambda a, y, classes: codes(y, classes), "the label alone"),
    ("join_label", lambda a, y, classes: a + 0, "the row alone"),
    ("join_label", lambda a, y, classes: behind(a[:, :1], y, classes), "nothing of a may be lost"),
    ("join_label", lambda a, y, classes: behind(a, y, classes), "is float64 though a is float32"),
    ("join_label", lambda a, y, classes: behind(a, y, classes).astype(np.float32), "off by up to"),
    ("join_label", lambda a, y, classes: np.concatenate([a, codes(y, classes).T], axis=1), "need as many rows"),
    ("encode_given", lambda p, x, y, c: encode(deaf["encoder"], x, c, y), "only the decoder would be told"),
    ("encode_given", encoder(zeros), "only the decoder would be told"),
    ("encode_given", encoder(from_1), "labels count from 0"),
    ("encode_given", encoder(in_front), "the label stood before x"),
    ("encode_given", encoder(lambda x, y, c: x), "join the label to x first"),
    ("encode_given", encoder(lambda x, y, c: np.column_stack([x, y])), "join the label to x first"),
    ("encode_given", lambda p, x, y, c: encode(p, x, c, y)[::-1], "other way round"),
    ("encode_given", lambda p, x, y, c: (encode(p, x, c, y)[0], np.exp(encode(p, x, c, y)[1] / 2)), "return sigma"),
    ("encode_given", lambda p, x, y, c: (encode(p, x, c, y)[0], np.exp(encode(p, x, c, y)[1])), "return the variance"),
    ("encode_given", lambda p, x, y, c: heads(p, layer(p, "encoder.hidden", joined_label(x, y, c))), "no tanh"),
    ("encode_given", lambda p, x, y, c: heads(p, np.maximum(layer(p, "encoder.hidden", joined_label(x, y, c)), 0)),
     "ended in a ReLU"),
    ("encode_given", lambda p, x, y, c: [np.maximum(a, 0) for a in encode(p, x, c, y)], "ReLU sits on mu"),
    ("encode_given", lambda p, x, y, c: (encode(p, x, c, y)[0], np.maximum(encode(p, x, c, y)[1], 0)),
     "ReLU sits on logvar"),
    ("encode_given", lambda p, x, y, c: (encode(p, x, c, y)[0] - p["encoder.mu.bias"], 0), "bias of the head mu"),
    ("encode_given", lambda p, x, y, c: heads(p, np.tanh(joined_label(x, y, c) @ p["encoder.hidden.weight"].T)),
     "hidden layer had no bias"),
    ("encode_given", lambda p, x, y, c: encode(p, x, c, y)[0], "two values"),
    ("decode_given", lambda p, z, y, c: decode(deaf["decoder"], z, c, y), "decoder does not know the label"),
    ("decode_given", decoder(zeros), "decoder does not know the label"),
    ("decode_given", decoder(from_1), "labels count from 0"),
    ("decode_given", decoder(lambda z, y, c: joined_label(z, (y + 1) % c.condition, c)), "labels count from 0"),
    ("decode_given", decoder(in_front), "the label stood before z"),
    ("decode_given", decoder(lambda z, y, c: z), "join it to z first"),
    ("decode_given", decoder(lambda z, y, c: np.column_stack([z, y])), "join it to z first"),
    ("decode_given", lambda p, z, y, c: decode_mean(p, z, c, y), "before the sigmoid"),
    ("decode_given", decoder(lambda z, y, c: joined_label(z, y, c), np.tanh), "last layer is linear"),
    ("decode_given", decoder(lambda z, y, c: joined_label(z, y, c), hidden=lambda a: a), "no tanh"),
    ("decode_given", decoder(lambda z, y, c: joined_label(z, y, c), hidden=lambda a: np.maximum(a, 0)), "ReLU"),
    ("decode_given", lambda p, z, y, c: decode(p, z, c, y) - p["decoder.logits.bias"], "bias of the logits"),
    ("decode_given", padded, "shape"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, of=decode), "return logits"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, axis=0), "first axis is the label"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, axis=0).reshape(len(z), c.condition, -1), "mixed up"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, labels=[1, 2, 3, 4, 5, 0]), "begin with label 1"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, labels=[1, 2, 3, 4, 5]), "Label 0 is missing"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, labels=[0, 1, 2, 3, 4]), "last label is missing"),
    ("at_every_label", lambda p, z, c: grid(p, z, c, labels=[2] * 6), "the same label"),
    ("at_every_label", lambda p, z, c: grid(deaf["decoder"], z, c), "does not know the label"),
    ("at_every_label", lambda p, z, c: grid(p, z, c).reshape(-1, c.pixels), "keep rows and columns apart"),
    ("at_every_label", lambda p, z, c: decode_mean(p, z, c, y), "shape"),
    ("at_every_label", lambda p, z, c: layer(p, "decoder.hidden", np.concatenate([z, np.eye(6)], axis=1)),
     "as many labels as"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, wanted, wanted, c), "which the image does not show"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, y, y, c), "a reconstruction"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, wanted, y, c), "wrong way round"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, y, wanted, c, of=decode), "return logits"),
    ("swap_label", lambda p, x, y, wanted, c: decode_mean(p, encode(p, x, c, y)[1], c, wanted), "send the logvar"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, (y - 1) % c.condition, (wanted - 1) % c.condition, c),
     "from 1"),
    ("swap_label", lambda p, x, y, wanted, c: swapped(p, x, y, (wanted + 1) % c.condition, c), "from 1"),
    ("swap_label", lambda p, x, y, wanted, c: decode_mean(p, encode(deaf["encoder"], x, c, y)[0], c, wanted),
     "Your encoder"),
    ("swap_label", lambda p, x, y, wanted, c: decode_mean(deaf["decoder"], encode(p, x, c, y)[0], c, wanted),
     "Your decoder"),
    ("swap_label", lambda p, x, y, wanted, c: decode_mean(p, np.zeros((5, 3)), c, wanted), "forgets the style"),
    ("share_obeyed", lambda read, p, z, y, u, c: 0.5, "never asks"),
    ("share_obeyed", reading(lambda p, z, y, u, c: decode_mean(p, z, c, y)), "gray means"),
    ("share_obeyed", reading(lambda p, z, y, u, c: np.round(decode_mean(p, z, c, y))), "rounded"),
    ("share_obeyed", reading(lambda p, z, y, u, c: decode(p, z, c, y)), "show the classifier logits"),
    ("share_obeyed", reading(lambda p, z, y, u, c: 1 - drawn(p, z, y, u, c)), "1 where they should be 0"),
    ("share_obeyed", reading(lambda p, z, y, u, c: (u < decode(p, z, c, y)).astype(float)), "compare u with the logits"),
    ("share_obeyed", reading(lambda p, z, y, u, c: u), "the noise u"),
    ("share_obeyed", reading(lambda p, z, y, u, c: drawn(p, z, (y - 1) % c.condition, u, c)), "counted from 1"),
    ("share_obeyed", reading(lambda p, z, y, u, c: drawn(p, z, (y + 1) % c.condition, u, c)), "counted from 1"),
    ("share_obeyed", reading(lambda p, z, y, u, c: drawn(deaf["decoder"], z, y, u, c)), "does not know the label"),
    ("share_obeyed", own_noise, "noise of your own"),
    ("share_obeyed", lambda read, p, z, y, u, c: (read(drawn(p, z, y, u, c)) == y).sum(), "count the hits"),
    ("share_obeyed", lambda read, p, z, y, u, c: read(drawn(p, z, y, u, c)) == y, "hit or miss"),
    ("share_obeyed", lambda read, p, z, y, u, c: (read(drawn(p, z, y, u, c)) != y).mean(), "something else"),
    ("share_obeyed", lambda read, p, z, y, u, c: 100 * (read(drawn(p, z, y, u, c)) == y).mean(), "percent"),
    ("share_obeyed", lambda read, p, z, y, u, c: read(drawn(p, z, y, u, c)), "what was read"),
    ("share_obeyed", reading(lambda p, z, y, u, c: drawn(p, -z, y, u, c)), "is off by"),
    ("bound_given", sizes, "the one-hot label is no pixel"),
    ("bound_given", with_label_in_the_target, "counted in the target"),
    ("bound_given", in_two_networks(params, deaf["decoder"]), "encoder only"),
    ("bound_given", in_two_networks(deaf["encoder"], params), "decoder only"),
    ("bound_given", lambda p, x, y, eps, c: bound(p, x, (y - 1) % c.condition, eps, c), "counted from 1"),
    ("bound_given", lambda p, x, y, eps, c: np.add(*elbo_terms(p, x, eps, c, y)), "KL is added"),
    ("bound_given", lambda p, x, y, eps, c: -bound(p, x, y, eps, c), "negative of the bound"),
    ("bound_given", lambda p, x, y, eps, c: elbo_terms(p, x, eps, c, y)[0], "KL is missing"),
    ("bound_given", lambda p, x, y, eps, c: elbo_terms(p, x, eps, c, y)[1], "KL alone"),
    ("bound_given", lambda p, x, y, eps, c: elbo_terms(p, x, eps, c, y)[0] / D - elbo_terms(p, x, eps, c, y)[1],
     "average the log-likelihood over the pixels"),
    ("bound_given", lambda p, x, y, eps, c: elbo_terms(p, x, eps, c, y)[0] - elbo_terms(p, x, eps, c, y)[1] / J,
     "average the KL over the latents"),
    ("bound_given", lambda p, x, y, eps, c: elbo_terms(p, x, eps, c, y)[0] - elbo_terms(p, x, eps, c, y)[1].sum(),
     "over the images too"),
    ("bound_given", lambda p, x, y, eps, c: bound(p, x, y, eps, c).mean(), "mean over the images"),
    ("bound_given", lambda p, x, y, eps, c: bound(p, x, y, eps, c).sum(), "sum over the images"),
    ("bound_given", lambda p, x, y, eps, c: bound_at(p, x, y, c, encode(p, x, c, y)[0]), "without noise"),
    ("bound_given", lambda p, x, y, eps, c: bound_at(p, x, y, c, eps), "noise alone"),
    ("bound_given", lambda p, x, y, eps, c: bound_at(p, x, y, c, encode(p, x, c, y)[0] + eps), "not scaled"),
    ("bound_given",
     lambda p, x, y, eps, c: bound_at(p, x, y, c, encode(p, x, c, y)[0] + np.exp(encode(p, x, c, y)[1]) * eps),
     "by the variance"),
    ("bound_given", lambda p, x, y, eps, c: bound_at(p, x, y, c, encode(p, x, c, y)[0] + encode(p, x, c, y)[1] * eps),
     "by logvar"),
]


@pytest.mark.parametrize(("name", "theirs", "words"), MISTAKES, ids=[f"{name}: {words}" for name, _, words in MISTAKES])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    told = verdict.message.split(" (line ")[0]              # of an error, without the line of this file where it happened
    assert verdict.state == WRONG and words in told, verdict


RIGHT = {
    "one_hot": lambda y, classes: (y[:, None] == np.arange(classes)).astype(int),
    "share_obeyed": lambda read, p, z, y, u, c: np.mean(read(u < decode_mean(p, z, c, y)) == y),
    "bound_given": bound,
}


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_answer_is_right(name):
    assert TASKS[name].judge(RIGHT[name]).state == SOLVED


def test_the_case_of_the_checks_tells_labels_apart():
    """Every label matters to both networks, and the log 2 of a label in the target is the one of logits 0."""
    logits = np.stack([decode(params, eps[:1], config, np.array([label]))[0] for label in range(C)])
    assert len(np.unique(logits.round(6), axis=0)) == C
    for labels in (*shifts(y, config), wanted):
        assert np.abs(encode(params, x, config, labels)[0] - encode(params, x, config, y)[0]).max(axis=1).min() > 1e-3
    np.testing.assert_allclose(with_label_in_the_target(params, x, y, eps, config),
                               bound(params, x, y, eps, config) - math.log(2) * C, rtol=1e-12)
