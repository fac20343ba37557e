"""Hamiltonian Monte Carlo against densities whose moments are known, and against wrong ways to do it.

    pytest tests/test_hmc.py

Letters: B chains, J latents, S draws, n leapfrog steps.
"""

import math

import pytest
import torch
from oracles import assert_close

from common.config import InputError
from paper import hmc
from paper.hmc import Chains, burn_in, leapfrog, start_chains, value_and_gradient

STANDARD_ERRORS = 5         # a right moment is off by more once in two million seeds, and these are fixed
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(z):
    """log N(z; MEAN, COVARIANCE) without its constant. (..., 3) -> (...)."""
    off = z - MEAN
    return -0.5 * torch.einsum("...i,ij,...j->...", off, PRECISION, off)


def quartic(z):
    """A density that is no Gaussian, whose rows differ by their place only. (..., J) -> (...)."""
    return -(z**4).sum(dim=-1) / 4 + 0.3 * z.prod(dim=-1)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


# ---- checks: the right answer passes them, and each wrong answer below fails the one that it names -------------------


def check_the_draws_have_the_mean_and_covariance_of_the_density():
    """500 independent chains: each chain's own average is one value, so that correlated draws widen the error bar."""
    chains = start_chains(gaussian, MEAN + normal(500, 3), step_size=0.5)
    chains = hmc.draw(gaussian, chains, 30, 3, generator())[1]                           # forget the start
    draws = hmc.draw(gaussian, chains, 20, 3, generator(1))[0] - MEAN                    # (S, B, J)
    products = torch.einsum("sbi,sbj->bij", draws, draws) / len(draws)                   # (B, J, J)
    for name, values, want in (("mean", draws.mean(dim=0), 0 * MEAN), ("covariance", products, COVARIANCE)):
        error = values.std(dim=0) / math.sqrt(len(values))
        off = (values.mean(dim=0) - want).abs() / error
        assert off.max() < STANDARD_ERRORS, f"{name}: off by {off.max():.1f} standard errors\n{values.mean(dim=0)}"


def check_every_chain_explores_the_whole_density():
    """The variance within single chains, over 50 draws, must be near the whole: 0.7 to 1.3 of it, on average."""
    chains = start_chains(gaussian, MEAN + normal(200, 3), step_size=0.4)
    draws = hmc.draw(gaussian, chains, 50, 5, generator())[0]
    share = draws.var(dim=0).mean(dim=0) / COVARIANCE.diagonal()                         # its sd is below 0.02
    assert (share > 0.7).all() and (share < 1.3).all(), f"within a chain, {share.tolist()} of the variance"


def check_a_path_to_nowhere_is_rejected():
    """A density that ends (nan beyond 1) and steps that overflow: chains stay where it is finite, and go on."""
    def ends(z):
        return torch.where((z.abs() < 1).all(dim=-1), -0.5 * (z * z).sum(dim=-1), math.nan)

    chains = start_chains(ends, torch.zeros(40, 2, dtype=torch.float64), step_size=0.5)
    draws, chains, acceptance = hmc.draw(ends, chains, 50, 3, generator())
    assert (draws.abs() < 1).all(), "a draw where there is no density"
    assert torch.isfinite(chains.log_p).all() and torch.isfinite(chains.gradient).all()
    assert 0 < acceptance.mean() < 1 and (draws.std(dim=0) > 0.05).all()
    step_size = torch.tensor([0.1, 1e200, 0.1], dtype=torch.float64)[:, None]            # the second overflows
    chains, acceptance = hmc.transition(quartic, start_chains(quartic, normal(3, 2), step_size), 4, generator())
    assert acceptance[1] == 0 and (acceptance[::2] > 0.5).all() and torch.isfinite(chains.z).all()


def check_rows_do_not_mix():
    """A chain goes the same way beside another neighbor: here the neighbor is one whose every path is rejected."""
    start, step_size = normal(4, 3), torch.full((4, 1), 0.2, dtype=torch.float64)
    wild = step_size.clone()
    wild[1] = 1e200
    ways = [hmc.draw(quartic, start_chains(quartic, start, step), 20, 3, generator())[0] for step in (step_size, wild)]
    others = [0, 2, 3]
    assert torch.equal(ways[0][:, others], ways[1][:, others]), "a neighbor changes the way"
    assert torch.equal(ways[1][:, 1], start[1].expand(20, 3)) and not torch.equal(ways[0][:, 1], ways[1][:, 1])


CHECKS = {name: check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("name", CHECKS)
def test_hmc(name):
    CHECKS[name]()


# ---- wrong answers ---------------------------------------------------------------------------------------------------


def momentum_not_refreshed(log_density, chains, steps, generator=None):
    """The momentum of the first transition for ever: the chain keeps to a surface of one energy."""
    first = torch.Generator().manual_seed(7)
    momentum = torch.randn(chains.z.shape, generator=first, dtype=chains.z.dtype)
    path = leapfrog(log_density, chains.z, momentum, chains.gradient, chains.step_size, steps)
    return metropolis(chains, path, path[2] - hmc.kinetic(path[1]) - chains.log_p + hmc.kinetic(momentum), generator)


def no_kinetic_term(log_density, chains, steps, generator=None):
    """Accepts by the density alone: the draws huddle where it is high."""
    momentum = torch.randn(chains.z.shape, generator=generator, dtype=chains.z.dtype)
    path = leapfrog(log_density, chains.z, momentum, chains.gradient, chains.step_size, steps)
    return metropolis(chains, path, path[2] - chains.log_p, generator)


def everything_accepted(log_density, chains, steps, generator=None):
    """No Metropolis test: the error of the steps stays in."""
    momentum = torch.randn(chains.z.shape, generator=generator, dtype=chains.z.dtype)
    z, _, log_p, gradient = leapfrog(log_density, chains.z, momentum, chains.gradient, chains.step_size, steps)
    return Chains(z, chains.step_size, log_p, gradient), torch.ones_like(log_p)


def one_test_for_all(log_density, chains, steps, generator=None):
    """All rows accept or reject together, on the sum of their energies."""
    momentum = torch.randn(chains.z.shape, generator=generator, dtype=chains.z.dtype)
    path = leapfrog(log_density, chains.z, momentum, chains.gradient, chains.step_size, steps)
    log_ratio = path[2] - hmc.kinetic(path[1]) - chains.log_p + hmc.kinetic(momentum)
    return metropolis(chains, path, log_ratio.sum().expand_as(log_ratio), generator)


def metropolis(chains, path, log_ratio, generator):
    z, _, log_p, gradient = path
    acceptance = log_ratio.clamp(max=0).exp()
    accepted = torch.rand(acceptance.shape, generator=generator, dtype=acceptance.dtype) < acceptance
    row = accepted[:, None]
    return Chains(torch.where(row, z, chains.z), chains.step_size, torch.where(accepted, log_p, chains.log_p),
                  torch.where(row, gradient, chains.gradient)), acceptance


def nothing_wrong(log_density, chains, steps, generator=None):
    """The same by hand, without a mistake: what fails below fails for its mistake."""
    momentum = torch.randn(chains.z.shape, generator=generator, dtype=chains.z.dtype)
    path = leapfrog(log_density, chains.z, momentum, chains.gradient, chains.step_size, steps)
    return metropolis(chains, path, path[2] - hmc.kinetic(path[1]) - chains.log_p + hmc.kinetic(momentum), generator)


MOMENTS, EXPLORES = "the_draws_have_the_mean_and_covariance_of_the_density", "every_chain_explores_the_whole_density"
WRONG = {                                       # what stands in for `transition`, the check that notices, its words
    "momentum_not_refreshed": (momentum_not_refreshed, EXPLORES, "within a chain"),
    "no_kinetic_term": (no_kinetic_term, MOMENTS, "covariance: off by"),
    "everything_accepted": (everything_accepted, MOMENTS, "covariance: off by"),
    "everything_accepted_at_nan": (everything_accepted, "a_path_to_nowhere_is_rejected", "no density"),
    "one_test_for_all": (one_test_for_all, "rows_do_not_mix", "neighbor"),
}


@pytest.mark.parametrize("check", [MOMENTS, EXPLORES, "rows_do_not_mix"])
def test_the_stand_in_passes_where_nothing_is_wrong(check, monkeypatch):
    monkeypatch.setattr(hmc, "transition", nothing_wrong)
    CHECKS[f"check_{check}"]()


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_rejects(name, monkeypatch):
    wrong, check, words = WRONG[name]
    monkeypatch.setattr(hmc, "transition", wrong)
    with pytest.raises(AssertionError, match=words):
        CHECKS[f"check_{check}"]()


# ---- leapfrog --------------------------------------------------------------------------------------------------------


def path_from(z, momentum, step_size, steps, log_density=quartic):
    return leapfrog(log_density, z, momentum, value_and_gradient(log_density, z)[1], step_size, steps)


def test_leapfrog_with_flipped_momentum_comes_back():
    z, momentum = normal(6, 3), normal(6, 3, seed=1)
    end, end_momentum, _, _ = path_from(z, momentum, 0.1, 25)
    back, back_momentum, _, _ = path_from(end, -end_momentum, 0.1, 25)
    assert (end - z).abs().max() > 0.3, "the path went nowhere"
    # 50 steps of rounding, 2e-16 each, amplified where neighboring paths part
    assert_close("z (B, J)", back, z, rtol=0, atol=1e-11)
    assert_close("momentum (B, J)", back_momentum, -momentum, rtol=0, atol=1e-11)


def test_the_energy_error_is_of_second_order_in_the_step():
    """At a fixed path length half the step makes a fourth of the error, up to terms of fourth order (2% at most)."""
    z, momentum = normal(6, 3), normal(6, 3, seed=1)
    before = hmc.kinetic(momentum) - quartic(z)
    errors = []
    for steps in (100, 200):
        _, end_momentum, log_p, _ = path_from(z, momentum, 1.0 / steps, steps)
        errors.append(float((hmc.kinetic(end_momentum) - log_p - before).norm()))
    assert errors[1] > 1e-7, "an error too small to be compared"                         # rounding is 1e-14
    assert 3.92 < errors[0] / errors[1] < 4.08, f"half the step: error / {errors[0] / errors[1]:.3f}"


def test_leapfrog_hands_out_the_density_and_gradient_of_its_end():
    z, _, log_p, gradient = path_from(normal(6, 3), normal(6, 3, seed=1), 0.1, 3)
    want, want_gradient = value_and_gradient(quartic, z)
    assert torch.equal(log_p, want) and torch.equal(gradient, want_gradient)


def test_one_gradient_evaluation_a_step_and_none_for_the_weights():
    weight, calls = torch.ones(3, dtype=torch.float64, requires_grad=True), []

    def counted(z):
        calls.append(1)
        return -0.5 * (weight * z * z).sum(dim=-1)

    chains = start_chains(counted, normal(4, 3))
    for _ in range(3):
        chains, acceptance = hmc.transition(counted, chains, 5, generator())
    assert len(calls) == 1 + 3 * 5
    assert weight.grad is None and not any(tensor.requires_grad for tensor in (*vars(chains).values(), acceptance))


# ---- chains ----------------------------------------------------------------------------------------------------------


def test_after_tuning_each_row_accepts_nine_in_ten_at_its_own_scale():
    """Scales from 1e-3 to 1e3. The acceptance of 300 draws varies by 0.01 (sd 0.15 / sqrt(300)), its tuning by 0.02."""
    scale = torch.logspace(-3, 3, 40, dtype=torch.float64)[:, None]

    def scaled(z):
        return -0.5 * (z / scale).pow(2).sum(dim=-1)

    chains = start_chains(scaled, scale * normal(40, 3), step_size=scale * 10 ** normal(40, 1).clamp(-1, 1))
    chains = burn_in(scaled, chains, 200, 4, generator())
    draws, after, acceptance = hmc.draw(scaled, chains, 300, 4, generator(1))
    assert torch.equal(after.step_size, chains.step_size), "the step size went on changing"
    assert abs(float(acceptance.mean()) - hmc.TARGET) < 0.02, f"acceptance {acceptance.mean():.3f} on average"
    assert (acceptance - hmc.TARGET).abs().max() < 0.1, f"rows accept {acceptance.min():.3f} or {acceptance.max():.3f}"
    share = draws.std(dim=0) / scale
    assert share.min() > 0.5 and share.max() < 2, "a row's draws have another scale than its density"


def test_each_row_is_accepted_with_its_own_chance_and_carries_its_own_density():
    """400 rows with acceptances from 0 to 1: as many move as these say, and no common threshold decides."""
    start = start_chains(quartic, normal(400, 3), step_size=0.7)
    chains, acceptance = hmc.transition(quartic, start, 3, generator())
    moved = (chains.z != start.z).any(dim=1)
    spread = math.sqrt(float((acceptance * (1 - acceptance)).sum()))
    assert spread > 3 and abs(float(moved.sum() - acceptance.sum())) < STANDARD_ERRORS * spread
    assert acceptance[moved].min() < 0.5 < acceptance[~moved].max(), "the rows share their random number"
    log_p, gradient = value_and_gradient(quartic, chains.z)
    assert torch.equal(chains.log_p, log_p) and torch.equal(chains.gradient, gradient)


def test_a_path_that_would_be_a_full_turn_still_moves():
    """On N(0, 1) a step of sqrt(2) is a fourth of a turn: 4 of one length lead back to the start."""
    def standard(z):
        return -0.5 * z[..., 0] ** 2

    z = normal(100, 1)
    turned = path_from(z, normal(100, 1, seed=1), math.sqrt(2), 4, standard)[0]
    assert_close("z after a full turn (B, J)", turned, z, rtol=0, atol=1e-12)            # rounding
    draws = hmc.draw(standard, start_chains(standard, z, math.sqrt(2)), 100, 4, generator())[0]
    assert 0.8 < draws.var(dim=0).mean() < 1.1           # 1 if 100 draws were independent; standing still, 0


def test_any_leading_shape_is_as_many_rows():
    """(C, B, J) as (C * B, J): the same random numbers in the same order."""
    z = normal(2, 5, 3)
    one = hmc.draw(quartic, burn_in(quartic, start_chains(quartic, z), 5, 3, generator()), 4, 3, generator(1))
    flat = start_chains(quartic, z.reshape(10, 3))
    two = hmc.draw(quartic, burn_in(quartic, flat, 5, 3, generator()), 4, 3, generator(1))
    assert torch.equal(one[0].reshape(4, 10, 3), two[0]) and torch.equal(one[2].reshape(10), two[2])


def test_a_chain_goes_on_where_it_stopped_and_the_seed_decides():
    start = start_chains(quartic, normal(4, 3), step_size=0.3)
    together, source = hmc.draw(quartic, start, 12, 3, generator())[0], generator()
    first, chains, _ = hmc.draw(quartic, start, 5, 3, source)
    second = hmc.draw(quartic, chains, 7, 3, source)[0]
    assert torch.equal(torch.cat([first, second]), together)
    assert not torch.equal(hmc.draw(quartic, start, 12, 3, generator(1))[0], together)


def test_what_cannot_work_is_refused():
    with pytest.raises(InputError, match="not finite at a starting point"):
        start_chains(lambda z: torch.log(z).sum(dim=-1), torch.tensor([[1.0], [-1.0]]))
    with pytest.raises(InputError, match="one number for each row"):
        start_chains(lambda z: quartic(z).sum(), normal(4, 3))
    chains = start_chains(quartic, normal(4, 3))
    for call in (lambda: hmc.draw(quartic, chains, 0, 3), lambda: hmc.draw(quartic, chains, 3, 0),
                 lambda: burn_in(quartic, chains, 0, 3), lambda: burn_in(quartic, chains, 3, 0)):
        with pytest.raises(InputError, match="at least 1"):
            call()
