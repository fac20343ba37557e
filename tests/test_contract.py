"""The contract of contract.py, on every level, or on your own module with `pytest --impl PATH`."""

from contextlib import contextmanager

import numpy as np
import pytest
from contract import CASES, CONDITIONAL_CASES, EXACT, MODEL_CHECKS, PART_CHECKS, Case, check_gradients_at_the_kink
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import NotAttempted, referee
from oracles import assert_close

from common.config import VAEConfig

pytestmark = pytest.mark.contract


@contextmanager
def attempted():
    """A function that is missing, or a stub that raises NotImplementedError, is no failure: it is not attempted."""
    try:
        yield
    except NotAttempted as error:
        pytest.skip(str(error))
    except NotImplementedError as error:
        pytest.skip(f"not attempted: {error}")


@pytest.mark.parametrize("check", PART_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_part(implementation, check):
    with attempted():
        check(implementation, CASES["mlp-bernoulli"])


def belongs(case, check):
    """The mlp has no ReLU and so no kink. Step rules know nothing of a likelihood, and 50 steps of conv take seconds."""
    if case.config.arch == "mlp":
        return check is not check_gradients_at_the_kink
    return "50" not in check.__name__ or case.config.likelihood == "bernoulli"


@pytest.mark.parametrize(("case", "check"), [
    pytest.param(case, check, id=f"{name}-{check.__name__.removeprefix('check_')}")
    for name, case in (CASES | CONDITIONAL_CASES).items() for check in MODEL_CHECKS if belongs(case, check)
])
def test_model(implementation, case, check):
    with attempted():
        check(implementation, case)


@pytest.mark.parametrize("labels", [False, True], ids=["plain", "labels"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape_any_seed_gives_the_referees_gradients(implementation, labels, data):
    arch = data.draw(st.sampled_from(["mlp"] if labels else ["mlp", "conv"]), "arch")
    sides = st.integers(1, 3).map(lambda n: 4 * n) if arch == "conv" else st.integers(1, 6)
    shape = data.draw(sides, "height"), data.draw(sides, "width")
    config = VAEConfig(arch, shape, data.draw(st.integers(1, 5), "hidden"), data.draw(st.integers(1, 5), "latent"),
                       data.draw(st.sampled_from(["bernoulli", "gaussian"])),
                       condition=data.draw(st.integers(1, 4), "classes") if labels else 0)
    case = Case(config, data.draw(st.integers(1, 4), "batch"), data.draw(st.integers(0, 2**32 - 1), "seed"),
                data.draw(st.sampled_from([0.1, 0.5, 1.0]), "scale"))
    objective = {"beta": data.draw(st.floats(0, 8), "beta"), "free_bits": data.draw(st.floats(0, 1), "free_bits")}
    with attempted():
        got, want = (level("loss_and_grads", *case.draw(), config, **objective, **case.labels())
                     for level in (implementation, referee(implementation)))
    assert_close("loss", got[0], want[0], **EXACT)
    for name in want[2]:
        scale = np.abs(want[2][name]).max()
        assert_close(f"gradient of {name}", got[2][name], want[2][name], rtol=1e-9, atol=1e-9 * scale + 1e-12)
