"""Monte Carlo EM on probabilistic PCA, whose maximum likelihood is a formula (Tipping and Bishop 1999).

    pytest tests/test_monte_carlo_em.py

Letters: N training images, B of a minibatch, D pixels, J latents.
"""

import math

import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.distributions import MultivariateNormal

from common.config import InputError
from paper import monte_carlo_em
from paper.marginal_likelihood import log_joint_of
from paper.monte_carlo_em import MonteCarloEM

N, D, J, NOISE = 60, 5, 2, 0.5


class LinearDecoder(nn.Module):
    """z ~ N(0, I), x = W z + b + N(0, NOISE^2 I), W and b to be learnt."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(0.3 * torch.randn((D, J), generator=generator(5), dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(D, dtype=torch.float64))

    def log_likelihood(self, x, z):
        off = (x - z @ self.W.T - self.b) / NOISE
        return -0.5 * (off * off + math.log(2 * math.pi * NOISE**2)).sum(dim=-1)

    @torch.no_grad()
    def log_p(self, x):
        """The mean of log N(x; b, W W' + NOISE^2 I) over images, nats."""
        covariance = self.W @ self.W.T + NOISE**2 * torch.eye(D, dtype=x.dtype)
        return float(MultivariateNormal(self.b, covariance).log_prob(x).mean())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images():
    """(N, D), from a model of the same kind."""
    W = torch.randn((D, J), generator=generator(1), dtype=torch.float64)
    z, noise = (torch.randn(shape, generator=generator(seed), dtype=torch.float64)
                for seed, shape in ((2, (N, J)), (3, (N, D))))
    return z @ W.T + 1.0 + NOISE * noise


def highest_log_p(x):
    """Tipping and Bishop 1999, eq. 7: b the mean, W W' = the J largest eigenvalues less NOISE^2 along their vectors."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    best = LinearDecoder()
    with torch.no_grad():
        best.W.copy_(vectors[:, -J:] * (values[-J:] - NOISE**2).sqrt())
        best.b.copy_(x.mean(dim=0))
    return best.log_p(x)


def start(lr=0.03, **settings):
    model = LinearDecoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    z = torch.randn((N, J), generator=generator(4), dtype=torch.float64)
    return model, MonteCarloEM(log_joint_of(model), optimizer, z, **settings)


def train(em, x, epochs, source):
    for _ in range(epochs):
        for rows in torch.randperm(N, generator=source).split(20):
            terms = em.step(x[rows], rows, source)
    return terms


# ---- the check: the right answer passes it, and each wrong answer below fails it -------------------------------------


def check_log_p_rises_to_its_maximum():
    """From 15 nats below to 0.1: with 60 images, whose z's are noisy, three seeds ended 0.01 to 0.03 below."""
    x = images()
    model, em = start()
    first, highest, source = model.log_p(x), highest_log_p(x), generator()
    train(em, x, 40, source)
    for group in em.optimizer.param_groups:
        group["lr"] = 0.003
    terms = train(em, x, 40, source)
    last = model.log_p(x)
    assert first < highest - 5, f"it starts at {first:.2f}, the maximum is {highest:.2f}: nothing to learn"
    assert highest - 0.1 < last <= highest, f"it ends at {last:.3f}, the maximum is {highest:.3f}"
    assert terms["log_joint"].isfinite() and 0 < terms["acceptance"] <= 1


def test_log_p_rises_to_its_maximum():
    check_log_p_rises_to_its_maximum()


# ---- wrong answers ---------------------------------------------------------------------------------------------------


def nothing_moves(self, x, rows, generator=None):
    """The first z for ever."""
    return torch.tensor(1.0)


def climb(self, x, rows, generator=None):
    """z goes up the density, as in maximum a posteriori: no draw, and W grows without need of the posterior's width."""
    z = self.z[rows].requires_grad_()
    for _ in range(20):
        gradient, = torch.autograd.grad(self.log_joint(z, x).sum(), z)
        z = (z + 0.05 * gradient).detach().requires_grad_()
    self.z[rows] = z.detach()
    return torch.tensor(1.0)


def fresh_chains(self, x, rows, generator=None):
    """Chains that start from the prior at every visit, too far away for a single transition."""
    self.z[rows] = torch.randn((len(x), J), generator=generator, dtype=x.dtype)
    return e_step(self, x, rows, generator)


e_step = MonteCarloEM.e_step
WRONG = {"nothing_moves": nothing_moves, "climb": climb, "fresh_chains": fresh_chains}


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_rejects(name, monkeypatch):
    monkeypatch.setattr(MonteCarloEM, "e_step", WRONG[name])
    with pytest.raises(AssertionError, match="it ends at"):
        check_log_p_rises_to_its_maximum()


# ---- the steps -------------------------------------------------------------------------------------------------------

ROWS = torch.tensor([7, 3, 41])


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_e_step_moves_its_rows_from_where_they_were_and_no_weight():
    x = images()
    model, em = start()
    before, weights = em.z.clone(), copies(model)
    moved = before[ROWS]

    def density(z):
        return em.log_joint(z, x[ROWS])

    for _ in range(2):                                                   # a second visit goes on from the first
        z, step_size = em.z.clone(), em.step_size.clone()
        chains = monte_carlo_em.start_chains(density, z[ROWS], step_size[ROWS])
        want, acceptance = monte_carlo_em.transition(density, chains, 10, generator(6))
        found = em.e_step(x[ROWS], ROWS, generator(6))
        assert torch.equal(em.z[ROWS], want.z) and not torch.equal(em.z[ROWS], moved)
        assert torch.equal(found, acceptance.mean())
        assert torch.equal(em.step_size[ROWS] > step_size[ROWS], (acceptance > 0.9)[:, None])
        moved = em.z[ROWS]
    others = [n for n in range(N) if n not in ROWS]
    assert torch.equal(em.z[others], before[others]) and (em.step_size[others] == 0.1).all()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_m_step_is_five_updates_at_z_and_moves_no_z():
    x = images()
    model, em = start()
    before = em.state_dict()
    em.m_step(x[ROWS], ROWS)
    twin, other = start()
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.03)
    for _ in range(5):
        optimizer.zero_grad()
        (-other.log_joint(before["z"][ROWS], x[ROWS]).mean()).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert_close(name, tensor, twin.state_dict()[name], rtol=0, atol=1e-12)          # the same sums: rounding only
    assert all(torch.equal(em.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("settings", [{}, {"transitions": 3, "leapfrog_steps": 4, "updates": 2}], ids=str)
def test_gradients_are_counted(settings):
    x, calls = images(), []
    _, em = start(**settings)
    log_joint = em.log_joint
    em.log_joint = lambda z, x: calls.append(1) or log_joint(z, x)
    em.step(x[ROWS], ROWS, generator())
    assert len(calls) == em.gradients_per_image
    assert settings or em.gradients_per_image == 16


def test_step_sizes_come_to_nine_acceptances_in_ten():
    """At fixed weights: the mean over the last 40 of 80 visits to 60 chains has a standard error of 0.003, and the
    steady rate of tuning leaves less than 0.02."""
    x, source = images(), generator()
    _, em = start()
    rows = torch.arange(N)
    acceptance = torch.stack([em.e_step(x, rows, source) for _ in range(80)])
    assert acceptance[:5].mean() > 0.97 and abs(acceptance[40:].mean() - 0.9) < 0.035, acceptance
    assert em.step_size.unique().numel() > N // 2, "chains share a step size"


def test_a_restart_from_saved_state_gives_the_same_numbers():
    x = images()
    model, em = start()
    source = generator()
    train(em, x, 2, source)
    kept = em.state_dict(), copies(model), em.optimizer.state_dict(), source.get_state()
    kept = torch.utils._pytree.tree_map(lambda leaf: leaf.clone() if torch.is_tensor(leaf) else leaf, kept)
    terms = train(em, x, 2, source)
    again, other = start()
    other.load_state_dict(kept[0])
    again.load_state_dict(kept[1])
    other.optimizer.load_state_dict(kept[2])
    source.set_state(kept[3])
    repeated = train(other, x, 2, source)
    assert terms == repeated and torch.equal(em.z, other.z) and torch.equal(em.step_size, other.step_size)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_chains_share_no_memory_with_what_they_were_given_or_gave():
    x, (_, em) = images(), start()
    given, state = em.z.clone(), em.state_dict()
    twin = MonteCarloEM(em.log_joint, em.optimizer, given)
    for chains in (em, twin):
        before = chains.z.clone()
        chains.e_step(x[ROWS], ROWS, generator())
        assert not torch.equal(chains.z, before)
    assert torch.equal(given, before) and torch.equal(state["z"], before) and (state["step_size"] == 0.1).all()


def test_wrong_input_is_refused():
    model, em = start()
    x = images()
    with pytest.raises(InputError, match="3 rows for 4 images"):
        em.step(x[:4], ROWS, generator())
    for settings in ({"updates": 0}, {"leapfrog_steps": 0}, {"transitions": 0}, {"step_size": 0.0}):
        with pytest.raises(InputError, match="give at least 1"):
            MonteCarloEM(em.log_joint, em.optimizer, em.z, **settings)
    for z in (torch.zeros(N), torch.zeros(0, J)):
        with pytest.raises(InputError, match="z has shape"):
            MonteCarloEM(em.log_joint, em.optimizer, z)
    for state in ({"z": em.z}, {"z": em.z[1:], "step_size": em.step_size}):
        with pytest.raises(InputError, match="another training set"):
            em.load_state_dict(state)
    with torch.no_grad():
        model.b.fill_(math.nan)
    with pytest.raises(InputError, match="not finite"):
        em.step(x[ROWS], ROWS, generator())
