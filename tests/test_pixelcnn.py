"""The PixelCNN: its masks, its probabilities and its samples.

    pytest tests/test_pixelcnn.py

An autoregressive model stands or falls with one property: the logits of a cell know nothing of the cell itself, nor of what
comes after it. It is tested by derivatives, and by the sum of all probabilities, which a model that peeks misses.
Letters: B images, h and w height and width in cells, K values of a cell, C channels.
"""

import itertools

import numpy as np
import pytest
import torch
from oracles import assert_close
from scipy.stats import chi2

from common.config import InputError
from paper import pixelcnn
from paper.pixelcnn import MaskedConv2d, PixelCNN

ROUNDING = 1e-12            # float64: sums of tens of numbers of order 1


def tiny(values=3, layers=2, kernel=3, context=0, seed=0):
    """A model in float64 with weights away from zero, so that every cell that can matter does."""
    model, rng = PixelCNN(values, 4, layers, kernel, context).double(), np.random.default_rng(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.from_numpy(rng.uniform(-0.7, 0.7, weight.shape)))
    return model


def draws(values, shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(values, size=shape))


def everything(values, height, width):
    """All images of this size: (values^(h * w), h, w)."""
    return torch.tensor(list(itertools.product(range(values), repeat=height * width))).reshape(-1, height, width)


def influence(model, x, context=None):
    """|d logits of cell i / d features of cell j|, largest over channels and images: (h * w, h * w)."""
    features = []
    hook = model.embed.register_forward_hook(lambda module, given, out: features.append(out.requires_grad_()))
    logits = model(x, context)                                           # (B, K, h, w)
    hook.remove()
    found = []
    for cell in logits.flatten(2).unbind(2):                             # (B, K)
        weights = torch.linspace(0.5, 1.5, cell.numel(), dtype=cell.dtype).reshape(cell.shape)
        grad, = torch.autograd.grad((cell * weights).sum(), features[0], retain_graph=True)      # (B, h, w, C)
        found.append(grad.abs().amax(dim=(0, 3)).flatten())
    return torch.stack(found)


# ---- what a cell sees --------------------------------------------------------------------------------------------------


def test_the_masks_are_the_cells_before_in_reading_order():
    assert MaskedConv2d(1, 1, 3, "A").mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert MaskedConv2d(1, 1, 3, "B").mask.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert MaskedConv2d(1, 1, 5, "B").mask.sum() == 13


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_cell_sees_none_of_itself_and_of_what_comes_after_and_all_before_but_the_blind_spot(layers):
    height, width, reach = 4, 5, layers + 1                              # kernel 3: one row up, or one column, a layer
    seen = influence(tiny(layers=layers), draws(3, (2, height, width)))
    for i, j in np.ndindex(seen.shape):
        (row, column), (other_row, other_column) = divmod(i, width), divmod(j, width)
        up, right = row - other_row, other_column - column
        if j >= i:
            assert seen[i, j] == 0, f"cell {i} sees cell {j}"
        elif right > up or up > reach or -right > reach:
            assert seen[i, j] == 0, f"cell {i} sees cell {j}, out of its reach: the file says that it cannot"
        else:
            assert seen[i, j] > 1e-6, f"cell {i} does not see cell {j}"


def test_a_cell_sees_the_context_of_its_own_place_and_before():
    model, x = tiny(context=2), draws(3, (1, 3, 4))
    context = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2, 3, 4)))
    before = model(x, context)
    for j in range(12):
        other = context.clone()
        other.flatten(2)[:, :, j] += 1
        moved = (model(x, other) - before).abs().amax(dim=1).flatten()   # (h * w,)
        assert (moved[:j] == 0).all() and moved[j] > 1e-6
    assert (influence(model, x, context).triu() == 0).all()


# ---- probabilities -----------------------------------------------------------------------------------------------------


def total(model, images, context=None):
    """The sum of all probabilities, which is 1."""
    if context is not None:
        context = context.expand(len(images), -1, -1, -1)
    return float(model.log_prob(images, context).exp().sum().detach())


def test_the_probabilities_of_all_images_sum_to_one():
    images = everything(2, 2, 3)
    assert len(images) == 64 and abs(total(tiny(values=2), images) - 1) < ROUNDING
    context = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2, 2, 3)))
    assert abs(total(tiny(values=2, context=2), images, context) - 1) < ROUNDING
    spread = float(tiny(values=2).log_prob(images).std().detach())
    assert spread > 0.3, "all images alike: a wrong factor would go unseen"


def test_log_prob_is_the_sum_over_cells_of_the_log_softmax():
    model, x = tiny(), draws(3, (2, 3, 4))
    logits, want = model(x).detach().numpy(), np.zeros(2)
    for b, r, c in np.ndindex(x.shape):
        p = np.exp(logits[b, :, r, c])
        want[b] += np.log(p[x[b, r, c]] / p.sum())
    assert_close("log p", model.log_prob(x).detach(), want, rtol=ROUNDING, atol=ROUNDING)


def test_mask_b_in_the_first_layer_is_noticed(monkeypatch):
    """Named wrong answer: a cell sees itself. The loss of such a model falls to zero, and it cannot draw."""
    class Peeking(MaskedConv2d):
        def __init__(self, inputs, outputs, kernel, kind):
            super().__init__(inputs, outputs, kernel, "B")

    monkeypatch.setattr(pixelcnn, "MaskedConv2d", Peeking)
    wrong = tiny(values=2)
    assert (influence(wrong, draws(2, (2, 2, 3))).diagonal() > 1e-6).all()
    assert abs(total(wrong, everything(2, 2, 3)) - 1) > 1e-3


# ---- samples -----------------------------------------------------------------------------------------------------------


def test_samples_come_as_often_as_their_probabilities_say():
    """16 images of 2 x 2, 20,000 draws: chi-squared with 15 degrees of freedom exceeds its bar once in a million seeds."""
    model, count = tiny(values=2), 20_000
    images, place = everything(2, 2, 2), torch.tensor([8, 4, 2, 1])
    want = count * model.log_prob(images).exp().detach()
    x = model.sample((count, 2, 2), torch.Generator().manual_seed(0))
    seen = torch.bincount((x.flatten(1) * place).sum(dim=1), minlength=16)
    bar = chi2.isf(1e-6, df=15)
    assert want.min() > 5, "too few of one kind for the chi-squared distribution"
    assert float(((seen - want) ** 2 / want).sum()) < bar
    assert float(((seen - count / 16) ** 2 / (count / 16)).sum()) > bar, "all images alike: this would see nothing"


def test_samples_with_a_context_follow_it():
    model, count = tiny(values=2, context=1), 4000
    context = torch.tensor([-3.0, 3.0], dtype=torch.float64)[:, None, None, None].expand(2, 1, 1, 2)
    x = model.sample((2 * count, 1, 2), torch.Generator().manual_seed(0), context.repeat_interleave(count, dim=0))
    for side in (0, 1):
        images = everything(2, 1, 2)
        p = model.log_prob(images, context[side:side + 1].expand(4, -1, -1, -1)).exp().detach()
        share = (x[side * count:(side + 1) * count, None] == images).all(dim=(2, 3)).double().mean(dim=0)
        assert ((share - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all(), (side, share, p)


def test_samples_are_those_of_their_generator():
    model = tiny()
    first, again, other = (model.sample((5, 3, 4), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.long and 0 <= int(first.min()) and int(first.max()) < 3


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: PixelCNN(1, 4, 1), "values is 1"),
    (lambda: PixelCNN(2, 5, 1), "channels is 5"),
    (lambda: PixelCNN(2, 4, 1, kernel=4), "kernel is 4"),
    (lambda: PixelCNN(2, 4, 1)(torch.zeros(2, 3, 4)), "x is torch.float32"),
    (lambda: PixelCNN(2, 4, 1)(torch.zeros(2, 12, dtype=torch.long)), "of shape \\(2, 12\\)"),
    (lambda: PixelCNN(2, 4, 1, context=3)(torch.zeros(2, 3, 4, dtype=torch.long)), "needs the context"),
    (lambda: PixelCNN(2, 4, 1)(torch.zeros(2, 3, 4, dtype=torch.long), torch.zeros(2, 3, 3, 4)), "has no context"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)
