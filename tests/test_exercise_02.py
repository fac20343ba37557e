"""Exercise 02: every named mistake is answered with a sentence of its own, and other wrong answers are rejected too."""

import math

import numpy as np
import pytest
from layers_numpy import sigmoid_forward
from networks_numpy import decode, decode_mean, encode
from scipy.spatial import geometric_slerp
from scipy.special import gammaln, xlogy
from scipy.stats import chi, chi2

from exercises.checks.interpolation import degenerate, round_walks, some_walks
from exercises.checks.verdict import SOLVED, TASKS, WRONG


def straight(a, b, t):
    return a[:, None] * (1 - t)[:, None] + b[:, None] * t[:, None]


def backwards(a, b, t):
    return straight(b, a, t)


def own_steps(a, b, t):
    return straight(a, b, np.linspace(0, 1, len(t)))


def in_place(a, b, t):
    b -= a
    return a[:, None] + t[:, None] * b[:, None]


def clipped(a, b, t):
    return straight(a, b, np.clip(t, 0, 1))


def means(params, config, *images):
    return [encode(params, some, config)[0] for some in images]


def walked(params, config, z, decoder=decode_mean):
    return decoder(params, z.reshape(-1, config.latent), config).reshape(*z.shape[:2], -1)


def right_walk(params, config, x_from, x_to, t):
    return walked(params, config, straight(*means(params, config, x_from, x_to), t))


def encoded_fade(params, config, x_from, x_to, t):
    fade = straight(x_from, x_to, t)
    return walked(params, config, encode(params, fade.reshape(-1, config.pixels), config)[0].reshape(*fade.shape[:2], -1))


def faded_reconstructions(params, config, x_from, x_to, t):
    return straight(*(decode_mean(params, mu, config) for mu in means(params, config, x_from, x_to)), t)


def logvars_walk(params, config, x_from, x_to, t):
    return walked(params, config, straight(*(encode(params, some, config)[1] for some in (x_from, x_to)), t))


def walk_with(change):
    return lambda *arguments: change(right_walk(*arguments))


def points_with(change):
    return lambda p, config, x_from, x_to, t: change(p, config, straight(*means(p, config, x_from, x_to), t))


def mixed_up(params, config, z):
    """Decoded point by point, then taken for walk by walk."""
    rows = decode_mean(params, z.swapaxes(0, 1).reshape(-1, config.latent), config)
    return rows.reshape(*z.shape[:2], -1)


def entropy(p):
    return -(xlogy(p, p) + xlogy(1 - p, 1 - p))


def clipped_logs(p):
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1)


def plain_logs(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1)


def log_chi(r, latent, power=None, half=1.0, two=None, gamma=None):
    """The logarithm of the chi density, one part of which can be another."""
    power, two = latent - 1 if power is None else power, latent / 2 - 1 if two is None else two
    return power * np.log(r) - half * r**2 / 2 - two * np.log(2) - (gammaln(latent / 2) if gamma is None else gamma)


def factors(r, latent):
    return r ** (latent - 1) * np.exp(-(r**2) / 2) / (2 ** (latent / 2 - 1) * np.exp(gammaln(latent / 2)))


def factors_of_floats(r, latent):
    return r ** (latent - 1) * np.exp(-(r**2) / 2) / (2 ** (latent / 2 - 1) * math.gamma(latent / 2))


def point_density(r, latent):
    return np.exp(-(r**2) / 2) / (2 * np.pi) ** (latent / 2)


def length(v):
    return np.linalg.norm(v, axis=-1, keepdims=True)


def unit(v):
    return v / length(v)


def dot(v, w):
    return (v * w).sum(axis=-1, keepdims=True)


def rest(b, a):
    """What is left of b without its part along a."""
    return b - dot(b, unit(a)) * unit(a)


def axis_of(a):
    return np.eye(a.shape[1])[np.abs(a).argmin(axis=1)]


def exact_zero(a, b):
    """Asks whether nothing at all is left, which rounding spoils."""
    left = rest(b, a)
    return unit(np.where(length(left) == 0, rest(axis_of(a), a), left))


def crooked_axis(a, b):
    left = rest(b, a)
    return unit(np.where(length(left) < 1e-6 * length(b), axis_of(a), left))


def long_axis(a, b):
    left = rest(b, a)
    return np.where(length(left) < 1e-6 * length(b), rest(axis_of(a), a), left / np.maximum(length(left), 1e-12))


def fixed_threshold(a, b):
    left = rest(b, a)
    return unit(np.where(length(left) < 1e-6, rest(axis_of(a), a), left))


def right_perpendicular(a, b):
    left = rest(b, a)
    return unit(np.where(length(left) < 1e-6 * length(b), rest(axis_of(a), a), left))


def all_or_none(a, b):
    """The axis for every row as soon as one of them lies along one line."""
    left = rest(b, a)
    return unit(rest(axis_of(a), a) if (length(left) < 1e-6 * length(b)).any() else left)


def angle_of(a, b):
    return np.arctan2(dot(b, right_perpendicular(a, b)), dot(b, unit(a)))


def turned(a, b, t, angle=None, u=None, w=None, lengths=None, sign=1):
    """The right slerp, one part of which can be another."""
    u, w = unit(a) if u is None else u, right_perpendicular(a, b) if w is None else w
    if angle is None:
        angle = angle_of(a, b)
    turn = angle * t
    lengths = length(a) * (1 - t) + length(b) * t if lengths is None else lengths
    return lengths[..., None] * (np.cos(turn)[..., None] * u[:, None] + sign * np.sin(turn)[..., None] * w[:, None])


def known(a, b, t):
    """The well-known formula, which divides by the sine of the angle."""
    angle = np.arccos(np.clip(dot(unit(a), unit(b)), -1, 1))
    weights = (np.sin((1 - t) * angle) / np.sin(angle))[..., None], (np.sin(t * angle) / np.sin(angle))[..., None]
    return weights[0] * a[:, None] + weights[1] * b[:, None]


def known_with_units(a, b, t):
    return (length(a) * (1 - t) + length(b) * t)[..., None] * known(unit(a), unit(b), t)


def unscaled_angle(a, b, t):
    """The angle from a . b, as if both had length 1."""
    return turned(a, b, t, angle=np.arccos(dot(a, b)))


def lerp_where_the_sine_is_0(a, b, t):
    """Right between points at an angle and along one line, but straight between opposite ones."""
    flat = np.abs(dot(unit(a), unit(b))) > 1 - 1e-9
    return np.where(flat[..., None], straight(a, b, t), known_with_units(a, b, t))


def no_way_round(a, b, t):
    """Right between points at an angle and along one line, NaN between opposite ones."""
    cosine = dot(unit(a), unit(b))
    walks = np.where((cosine > 1 - 1e-9)[..., None], straight(a, b, t), known_with_units(a, b, t))
    return np.where((cosine < 1e-9 - 1)[..., None], np.nan, walks)


def wobbling(a, b, t):
    """Between opposite points each point takes another side."""
    walks = turned(a, b, t)
    if not np.allclose(unit(a), -unit(b)):
        return walks
    other = np.cross(unit(a), right_perpendicular(a, b))
    mixed = turned(a, b, t, w=other)
    return np.where((np.arange(len(t)) % 2)[:, None] == 0, walks, mixed)


def evenly_scaled(a, b, t):
    return (length(a) * (1 - t) + length(b) * t)[..., None] * unit(straight(a, b, t))


def difference(z, has):
    return z[has].mean(axis=0) - z[~has].mean(axis=0)


def per_label(z, has, labels, empty=None):
    """A list of the differences; where one side is empty, `empty` or nothing."""
    masks = [labels == label for label in np.unique(labels)]
    both = [0 < has[mask].mean() < 1 for mask in masks]
    return [difference(z[mask], has[mask]) if fine else empty for mask, fine in zip(masks, both, strict=True)
            if fine or empty is not None]


def weighted(z, has, labels):
    sizes = [(labels == label).sum() for label in np.unique(labels) if 0 < has[labels == label].mean() < 1]
    return np.average(per_label(z, has, labels), axis=0, weights=sizes)


def centered(z, has, labels):
    return difference(z - np.stack([z[labels == label].mean(axis=0) for label in labels]), has)


def mean_of(z):
    return z.sum(axis=0) / np.int64(len(z))                                 # NaN where there is none


def with_nan(z, has, labels):
    masks = [labels == label for label in np.unique(labels)]
    return np.mean([mean_of(z[mask & has]) - mean_of(z[mask & ~has]) for mask in masks], axis=0)


def ten_labels(z, has, labels):
    return np.sum(per_label(z[labels < 10], has[labels < 10], labels[labels < 10]), axis=0) / 2


MISTAKES = [
    ("lerp", backwards, "from b to a"),
    ("lerp", lambda a, b, t: a[:, None] + t[:, None] * b[:, None], "at t = 1 you stand at a + b"),
    ("lerp", lambda a, b, t: t[:, None] * b[:, None], "start at 0"),
    ("lerp", lambda a, b, t: (1 - t)[:, None] * a[:, None], "end at 0"),
    ("lerp", lambda a, b, t: (1 - t)[:, None] * a[:, None] - t[:, None] * b[:, None], "subtract the part of b"),
    ("lerp", own_steps, "steps are all equal"),
    ("lerp", lambda a, b, t: straight(a, b, t).swapaxes(0, 1), "(S, N, J)"),
    ("lerp", lambda a, b, t: straight(a, b, t)[0], "first walk only"),
    ("lerp", turned, "go round"),
    ("lerp", clipped, "stop at their ends"),
    ("lerp", in_place, "argument number 2"),
    ("lerp", lambda a, b, t: None, "return"),
    ("latent_walk", lambda p, config, x_from, x_to, t: straight(x_from, x_to, t), "That is the fade"),
    ("latent_walk", encoded_fade, "You encode the fade"),
    ("latent_walk", faded_reconstructions, "from one reconstruction"),
    ("latent_walk", points_with(lambda p, config, z: z), "decode them"),
    ("latent_walk", points_with(lambda p, config, z: walked(p, config, z, decode)), "logits"),
    ("latent_walk", walk_with(lambda walk: sigmoid_forward(walk)[0]), "sigmoid twice"),
    ("latent_walk", logvars_walk, "between the logvar"),
    ("latent_walk", lambda p, config, x_from, x_to, t: right_walk(p, config, x_to, x_from, t), "from x_to to x_from"),
    ("latent_walk", walk_with(lambda walk: walk.swapaxes(0, 1)), "not in their places"),
    ("latent_walk", points_with(mixed_up), "not in their places"),
    ("latent_walk", walk_with(lambda walk: walk.reshape(-1, walk.shape[2])), "as the decoder gives them"),
    ("grayness", lambda p: -entropy(p).sum(axis=1), "negative"),
    ("grayness", lambda p: -(xlogy(p, p) - xlogy(1 - p, 1 - p)).sum(axis=1), "second term has the wrong sign"),
    ("grayness", lambda p: -xlogy(p, p).sum(axis=1), "term of the black pixels"),
    ("grayness", lambda p: -xlogy(1 - p, 1 - p).sum(axis=1), "term of the white pixels"),
    ("grayness", lambda p: entropy(p).mean(axis=1), "average over the pixels"),
    ("grayness", lambda p: entropy(p).sum(axis=0), "sum over the images"),
    ("grayness", lambda p: entropy(p).sum(), "sum over everything"),
    ("grayness", entropy, "every pixel"),
    ("grayness", lambda p: entropy(p).sum(axis=1) / np.log(2), "in bits"),
    ("grayness", lambda p: (p * (1 - p)).sum(axis=1), "variance p (1 - p)"),
    ("grayness", lambda p: -(np.log(p) + np.log(1 - p)).sum(axis=1), "lack their weights"),
    ("grayness", plain_logs, "0 times log 0"),
    ("chi_density", point_density, "one point"),
    ("chi_density", lambda r, latent: np.exp(-(r**2) / 2), "one point"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, power=latent)), "yours is J"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, two=0, gamma=0)), "constant below the fraction"),
    ("chi_density", log_chi, "take exp at the end"),
    ("chi_density", lambda r, latent: chi2.pdf(r**2, latent), "chi-square"),
    ("chi_density", lambda r, latent: chi2.pdf(r, latent), "chi-square"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, half=2)), "1/2 in exp"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, half=-1)), "has a plus"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, half=1 / r)), "square in exp"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, two=1 - latent / 2)), "take its logarithm away"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, two=0)), "power of 2 is missing"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, two=latent / 2)), "yours is J/2"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, gamma=-gammaln(latent / 2))), "take gammaln away"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, gamma=gammaln(latent))), "yours at J."),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, gamma=gammaln((latent + 1) / 2))), "(J + 1) / 2"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, gamma=0)), "Gamma is missing"),
    ("chi_density", lambda r, latent: np.exp(log_chi(r, latent, gamma=np.log(gammaln(latent / 2)))), "a logarithm already"),
    ("chi_density", factors, "too large for a float"),
    ("chi_density", factors_of_floats, "too large for a float"),
    ("perpendicular", lambda a, b: rest(b, a), "not of length 1"),
    ("perpendicular", lambda a, b: unit(b), "That is b, scaled"),
    ("perpendicular", lambda a, b: unit(a), "That is a, scaled"),
    ("perpendicular", lambda a, b: dot(b, unit(a)) * unit(a), "the part of b that points along a"),
    ("perpendicular", lambda a, b: -unit(rest(b, a)), "point away from b"),
    ("perpendicular", lambda a, b: unit(rest(a, b)), "exchange a and b"),
    ("perpendicular", lambda a, b: unit(b - dot(b, a) * a), "a must first be scaled"),
    ("perpendicular", lambda a, b: unit(b - dot(b, unit(a))), "without the direction"),
    ("perpendicular", lambda a, b: unit(np.cross(a, b)), "at right angles to a and to b"),
    ("perpendicular", lambda a, b: unit(b - a), "difference b - a"),
    ("perpendicular", lambda a, b: unit(rest(b, a)), "0 / 0"),
    ("perpendicular", exact_zero, "rounding error"),
    ("perpendicular", crooked_axis, "not at right angles"),
    ("perpendicular", long_axis, "has not the length 1"),
    ("perpendicular", fixed_threshold, "short vectors"),
    ("perpendicular", all_or_none, "ask row by row"),
    ("slerp", lambda a, b, t: turned(a, b, t, w=all_or_none(a, b)), "with a parallel one beside it"),
    ("slerp", lambda a, b, t: turned(a, b, t, angle=np.pi / 2 - angle_of(a, b)), "90 degrees less"),
    ("slerp", lambda a, b, t: turned(a, b, t, angle=np.arctan(np.tan(angle_of(a, b)))), "above 90 degrees"),
    ("slerp", lambda a, b, t: turned(a, b, t, u=a), "still has its length"),
    ("slerp", straight, "straight one"),
    ("slerp", lambda a, b, t: turned(a, b, t, lengths=np.ones((len(a), len(t)))), "length 1 everywhere"),
    ("slerp", lambda a, b, t: turned(a, b, t, lengths=length(a) * np.ones(len(t))), "keep the length of a"),
    ("slerp", lambda a, b, t: turned(a, b, t, lengths=length(b) * np.ones(len(t))), "length of b from the start"),
    ("slerp", lambda a, b, t: turned(a, b, t, lengths=length(a) ** (1 - t) * length(b) ** t), "constant factor"),
    ("slerp", lambda a, b, t: turned(b, a, t), "from b to a"),
    ("slerp", lambda a, b, t: turned(a, b, t, lengths=length(a) * t + length(b) * (1 - t)), "length runs the wrong way"),
    ("slerp", known, "vectors of one length"),
    ("slerp", unscaled_angle, "arccos takes numbers"),
    ("slerp", evenly_scaled, "fastest in the middle"),
    ("slerp", lambda a, b, t: turned(a, b, t, w=unit(b)), "towards b itself"),
    ("slerp", lambda a, b, t: turned(a, b, t, sign=-1), "sine has the wrong sign"),
    ("slerp", lambda a, b, t: turned(a, b, t, angle=np.full((len(a), 1), np.pi / 2)), "quarter circle"),
    ("slerp", lambda a, b, t: turned(a, b, t, u=right_perpendicular(a, b), w=unit(a)), "Cosine and sine are exchanged"),
    ("slerp", lambda a, b, t: turned(a, b, t).swapaxes(0, 1), "(S, N, J)"),
    ("slerp", known_with_units, "Where b lies along a your walk is NaN"),
    ("slerp", no_way_round, "Between opposite points your walk is NaN"),
    ("slerp", lerp_where_the_sine_is_0, "goes through 0"),
    ("slerp", wobbling, "leaves its plane"),
    ("attribute_vector", lambda z, has: -difference(z, has), "the wrong way"),
    ("attribute_vector", lambda z, has: z[has].mean(axis=0), "mean of those with it"),
    ("attribute_vector", lambda z, has: z[~has].mean(axis=0), "mean of those without it"),
    ("attribute_vector", lambda z, has: z[has].mean(axis=0) - z.mean(axis=0), "mean of all codes"),
    ("attribute_vector", lambda z, has: z[has].mean(axis=0) + z[~has].mean(axis=0), "add the two means"),
    ("attribute_vector", lambda z, has: z[has].sum(axis=0) - z[~has].sum(axis=0), "subtract sums"),
    ("attribute_vector", lambda z, has: z[has].mean() - z[~has].mean(), "over the latents too"),
    ("attribute_vector", lambda z, has: difference(z, has) / np.linalg.norm(difference(z, has)), "scale the vector"),
    ("attribute_vector", lambda z, has: np.median(z[has], axis=0) - np.median(z[~has], axis=0), "medians"),
    ("attribute_vector", lambda z, has: (z * has[:, None] - z * ~has[:, None]).mean(axis=0), "its own group"),
    ("attribute_vector", lambda z, has: z[has * 1].mean(axis=0) - z[1 - has].mean(axis=0), "row numbers"),
    ("balanced_attribute_vector", lambda z, has, labels: difference(z, has), "all images at once"),
    ("balanced_attribute_vector", lambda z, has, labels: -np.mean(per_label(z, has, labels), axis=0), "the wrong way"),
    ("balanced_attribute_vector", lambda z, has, labels: np.sum(per_label(z, has, labels), axis=0), "sum over the labels"),
    ("balanced_attribute_vector", lambda *given: np.mean(per_label(*given, empty=np.zeros(3)), axis=0), "as 0"),
    ("balanced_attribute_vector", weighted, "weigh the labels"),
    ("balanced_attribute_vector", lambda z, has, labels: per_label(z, has, labels), "vector for each label"),
    ("balanced_attribute_vector", lambda z, has, labels: per_label(z, has, labels)[0], "inside the loop"),
    ("balanced_attribute_vector", centered, "compare all at once"),
    ("balanced_attribute_vector", lambda z, has, labels: np.mean(per_label(z, has, labels)), "over the latents too"),
    ("balanced_attribute_vector", with_nan, "0 / 0"),
    ("balanced_attribute_vector", ten_labels, "labels above 9"),
]


@pytest.mark.parametrize(("name", "theirs", "words"), MISTAKES, ids=[f"{name}: {words}" for name, _, words in MISTAKES])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == WRONG and words in verdict.message, verdict


# ---- other ways to be right --------------------------------------------------------------------------------------------


def slerp_by_arccos(a, b, t):
    """The angle by arccos, the straight line where b lies along a, a half circle where it is opposite."""
    cosine = np.clip(dot(unit(a), unit(b)), -1, 1)
    return np.where((cosine > 1 - 1e-9)[..., None], straight(a, b, t),
                    np.where((cosine < 1e-9 - 1)[..., None], turned(a, b, t, angle=np.full((len(a), 1), np.pi)),
                             turned(a, b, t, angle=np.arccos(cosine))))


RIGHT = [
    ("lerp", lambda a, b, t: a[:, None] + t[:, None] * (b - a)[:, None]),
    ("lerp", lambda a, b, t: np.stack([(1 - s) * a + s * b for s in t], axis=1)),
    ("latent_walk", lambda p, config, x_from, x_to, t: np.stack([
        decode_mean(p, (1 - s) * means(p, config, x_from)[0] + s * means(p, config, x_to)[0], config) for s in t], axis=1)),
    ("grayness", clipped_logs),
    ("chi_density", chi.pdf),
    ("perpendicular", right_perpendicular),
    ("perpendicular", lambda a, b: -right_perpendicular(a, -b)),
    ("slerp", turned),
    ("slerp", slerp_by_arccos),
    ("slerp", lambda a, b, t: turned(a, b, t, w=-right_perpendicular(a, -b))),
    ("attribute_vector", lambda z, has: np.average(z, axis=0, weights=has) - np.average(z, axis=0, weights=~has)),
    ("balanced_attribute_vector", lambda z, has, labels: np.mean(per_label(z, has, labels), axis=0)),
]


@pytest.mark.parametrize(("name", "theirs"), RIGHT, ids=[f"{name} {number}" for number, (name, _) in enumerate(RIGHT)])
def test_another_right_way_is_accepted(name, theirs):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == SOLVED, verdict


def test_the_round_walk_of_the_check_is_scipys_on_unit_vectors():
    a, b, t = some_walks()
    ones = np.ones((len(a), len(t)))
    scipys = np.stack([geometric_slerp(unit(p), unit(q), t) for p, q in zip(a, b, strict=True)])
    np.testing.assert_allclose(round_walks(a, b, t, ones), scipys, atol=1e-12)      # float64, a few operations


# ---- and wrong ones that nobody named ----------------------------------------------------------------------------------


NEARLY = {
    "lerp": lambda a, b, t: straight(a, b, t**2),
    "latent_walk": walk_with(lambda walk: walk.round(3)),
    "grayness": lambda p: np.minimum(p, 1 - p).sum(axis=1),
    "chi_density": lambda r, latent: np.exp(-((r - np.sqrt(latent)) ** 2)) / np.sqrt(np.pi),     # a Gaussian near sqrt(J)
    "perpendicular": lambda a, b: rest(axis_of(a), a) / length(rest(axis_of(a), a)),            # another right angle
    "slerp": lambda a, b, t: turned(a, b, np.sin(t * np.pi / 2)),
    "attribute_vector": lambda z, has: (z * np.where(has, 1, -1)[:, None]).mean(axis=0) * 2,
    "balanced_attribute_vector": lambda *given: np.median(per_label(*given) + [np.zeros(3)], axis=0),
}


@pytest.mark.parametrize("name", NEARLY)
def test_an_answer_that_only_looks_right_is_wrong(name):
    verdict = TASKS[name].judge(NEARLY[name])
    assert verdict.state == WRONG and "stopped with" not in verdict.message, verdict


@pytest.mark.parametrize("size", [1e-5, -1e-5])
def test_a_round_walk_that_is_slightly_off_where_b_is_opposite_is_wrong(size):
    def bent(a, b, t):
        walks = turned(a, b, t)
        return walks * (1 + size * t)[:, None] if np.allclose(unit(a), -unit(b)) else walks
    assert TASKS["slerp"].judge(bent).state == WRONG
    degenerate(turned, np.array([0, 0.3, 1]))                               # and the right one is not
