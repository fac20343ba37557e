"""The suite can fail: each named wrong answer, planted into level 1, is rejected by the check that it names."""

import compare_gradients
import contract
import numpy as np
import pytest
import vae_numpy
from contract import CASES, CONDITIONAL_CASES, Case
from implementations import LEVELS
from wrong_answers import WRONG_ANSWERS, planted

from common.cli import run_command


def check_backward_is_pure(impl, case: Case):
    """Level 1 alone shows its caches: a second backward on the same cache gives the same, and the cache stays."""
    params, x, eps = case.draw()
    (log_likelihood, kl), cache = vae_numpy.likelihood_and_kl_forward(params, x, eps, case.config, **case.labels())
    before = [array.copy() for array in arrays_in(cache)]
    first, second = (vae_numpy.likelihood_and_kl_backward(np.ones_like(log_likelihood), np.ones_like(kl), cache)
                     for _ in range(2))
    for name in params:
        assert np.array_equal(first[name], second[name]), f"the second backward gives another gradient of {name}"
    for old, new in zip(before, arrays_in(cache), strict=True):
        assert np.array_equal(old, new), f"backward changed an array of shape {old.shape} in its cache"


def arrays_in(tree):
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, tuple):
        for branch in tree:
            yield from arrays_in(branch)


@pytest.mark.parametrize("case", [*CASES.values(), *CONDITIONAL_CASES.values()], ids=[*CASES, *CONDITIONAL_CASES])
def test_backward_is_pure(case):
    check_backward_is_pure(LEVELS["numpy"], case)


def suitable_case(name) -> Case:
    settings = WRONG_ANSWERS[name].settings
    if "condition" in settings:
        return CONDITIONAL_CASES["mlp-bernoulli-labels"]
    return CASES[f"{settings.get('arch', 'mlp')}-{settings.get('likelihood', 'bernoulli')}"]


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_the_suite_rejects(name):
    wrong = WRONG_ANSWERS[name]
    checks = {check.__name__.removeprefix("check_"): check
              for check in (*contract.PART_CHECKS, *contract.MODEL_CHECKS, check_backward_is_pure)}
    check = checks[wrong.caught_by]
    check(LEVELS["numpy"], suitable_case(name))                              # the right answer passes
    with planted(name), np.errstate(all="ignore"), pytest.raises(AssertionError):
        check(LEVELS["numpy"], suitable_case(name))
    check(LEVELS["numpy"], suitable_case(name))                              # and nothing is left behind


def test_the_right_answer_compares_all_green(tmp_path, capsys):
    for arch, condition in (("mlp", 0), ("mlp", 3), ("conv", 0)):
        for likelihood in ("bernoulli", "gaussian"):
            arguments = ["--arch", arch, "--likelihood", likelihood, "--beta", "2", "--free-bits", "0.3"]
            arguments += ["--condition", str(condition)] * (condition > 0)
            compare_gradients.main([*arguments, "--entries", "2", "--out", str(tmp_path)])
            output = capsys.readouterr().out
            assert "WRONG" not in output and "all agree" in output
            picture = tmp_path / f"{arch}-{likelihood}{f'-{condition}-classes' * (condition > 0)}.png"
            assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("name", compare_gradients.PLANTS)
def test_compare_gradients_shows_red_for(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        compare_gradients.main(["--plant", name, "--entries", "2", "--out", str(tmp_path)])
    assert stop.value.code == 1
    output = capsys.readouterr().out
    assert "WRONG" in output and WRONG_ANSWERS[name].mistake in output
    assert len(list(tmp_path.glob(f"*{name}.png"))) == 1


def test_a_wrong_objective_agrees_with_its_own_differences_and_a_wrong_backward_does_not(tmp_path, capsys):
    def wrong_columns(name):
        with pytest.raises(SystemExit):
            compare_gradients.main(["--plant", name, "--entries", "2", "--out", str(tmp_path)])
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("encoder.logvar.weight"))
        return [word for word in line.split() if word in ("ok", "WRONG")]

    assert wrong_columns("kl_sign") == ["WRONG", "ok"]
    assert wrong_columns("reparameterize_half") == ["WRONG", "WRONG"]


@pytest.mark.parametrize("arguments", [
    ["--plant", "nonsense"], ["--beta", "-1"], ["--free-bits", "nan"], ["--scale", "0"], ["--seed", "-1"],
    ["--entries", "-1"], ["--condition", "-1"], ["--condition", "2", "--arch", "conv"],
    ["--weights", "missing.npz"],
])
def test_compare_gradients_refuses(arguments, tmp_path, capsys):
    assert run_command(lambda: compare_gradients.main([*arguments, "--out", str(tmp_path / "out")])) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ")
    assert not (tmp_path / "out").exists()
