"""How an answer is judged: a check takes the learner's function, tries it, and says in one sentence what is wrong.

    @task("01.3")
    def kl_per_latent(theirs):
        mu, logvar = ...
        compare("the KL divergence", call(theirs, mu, logvar), right, {"a sentence that teaches": what_that_mistake_gives})

In a notebook `check.kl_per_latent(kl_per_latent)` prints the verdict. A check knows the right numbers, so it can compare;
it never prints the code that makes them.
"""

import functools
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

SOLVED, WRONG, NOT_ATTEMPTED = "solved", "wrong", "not attempted"
RECORD = "VAE_CHECK_RECORD"                         # a file to which each verdict is added too, for the progress board
HERE = Path(__file__).resolve().parent


class Wrong(Exception):
    """The answer is wrong; the message is a sentence that teaches."""


@dataclass(frozen=True)
class Verdict:
    """What became of one task: its number ("01.3"), the name of its function, a state, and for a wrong answer why."""

    number: str
    name: str
    state: str
    message: str = ""

    def __str__(self):
        mark = {SOLVED: "\N{HEAVY CHECK MARK}", WRONG: "\N{HEAVY BALLOT X}", NOT_ATTEMPTED: "\N{WHITE CIRCLE}"}[self.state]
        return f"{mark} {self.number} {self.name}: {self.state}" + (f". {self.message}" if self.message else "")


@dataclass(frozen=True)
class Task:
    """One thing to write: its number, the name of the learner's function, and the check that takes that function.

    Called with the learner's function it prints the verdict, which is what a notebook does.
    """

    number: str
    name: str
    check: Callable

    def judge(self, theirs) -> Verdict:
        """Tries the learner's function; whatever it does becomes a verdict."""
        verdict = functools.partial(Verdict, self.number, self.name)
        try:
            self.check(theirs)
        except NotImplementedError:
            return verdict(NOT_ATTEMPTED)
        except Wrong as error:
            return verdict(WRONG, str(error))
        except Exception as error:                  # their code may raise anything
            return verdict(WRONG, f"Your code stopped with {type(error).__name__}: {error}{_where(error)}")
        return verdict(SOLVED)

    def __call__(self, theirs):
        verdict = self.judge(theirs)
        print(verdict)
        if RECORD in os.environ:
            with open(os.environ[RECORD], "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")


TASKS: dict[str, Task] = {}                         # by the function's name, in the order of the exercises


def task(number: str):
    """Makes a task of a check: of a function that takes the learner's and raises Wrong."""
    def register(check):
        name = check.__name__
        if name in TASKS:
            raise ValueError(f"there are two tasks {name}: {TASKS[name].number} and {number}")
        TASKS[name] = Task(number, name, check)
        return TASKS[name]
    return register


def call(theirs, *arguments):
    """theirs(*arguments); Wrong where it returns None or writes into an array that it was given."""
    if not callable(theirs):
        raise Wrong(f"What you gave is {type(theirs).__name__}, not a function: give its name without parentheses.")
    before = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
    got = theirs(*arguments)
    for position, (value, copy) in enumerate(zip(arguments, before, strict=True), start=1):
        if isinstance(value, np.ndarray) and not np.array_equal(value, copy, equal_nan=True):
            raise Wrong(f"Your function writes into its argument number {position}, which the caller still needs: make a "
                        "new array (a = a + b) instead of changing the old one (a += b).")
    if got is None:
        raise Wrong("Your function returns None: is the `return` missing?")
    return got


def pair(got, what: str):
    """The two values of a function that is to return two. Wrong where it returns something else."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"Return two values, {what}: yours returns {_kind(got)}.")
    return got


def number(what: str, got, low: float, high: float):
    """Wrong unless `got` is one number from low to high."""
    value = np.asarray(got)
    if value.ndim or value.dtype.kind not in "fiu":
        raise Wrong(f"{_start(what)} should be one number, yours is {_kind(got)}.")
    if not low <= value <= high:
        raise Wrong(f"{_start(what)} should lie between {low:.6g} and {high:.6g}, yours is {float(value):.6g}.")


def compare(what: str, got, right, mistakes=None, rtol: float = 1e-8, atol: float = 1e-10):
    """Wrong unless `got` is `right`: shape first, then the known mistakes, then the numbers.

    what       "the KL divergence", for the sentence
    mistakes   {sentence: what that mistake gives}, tried in this order; a value may be a list of several
    rtol, atol as of np.allclose; the defaults are for float64
    """
    right = np.asarray(right)
    if got is None:
        raise Wrong(f"{_start(what)} should be an array of numbers, yours is None: is the `return` missing?")
    try:
        numbers = np.asarray(got, np.float64)
    except (TypeError, ValueError) as error:
        raise Wrong(f"{_start(what)} should be an array of numbers, yours is {_kind(got)}.") from error

    def same(other):
        other = np.asarray(other, np.float64)
        return numbers.shape == other.shape and np.allclose(numbers, other, rtol=rtol, atol=atol)

    if same(right):
        return
    for sentence, values in (mistakes or {}).items():
        if any(same(value) for value in (values if isinstance(values, list) else [values])):
            raise Wrong(sentence)
    if numbers.shape != right.shape:
        raise Wrong(f"{_start(what)} should have the shape {right.shape}, yours has {numbers.shape}.")
    if not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise Wrong(f"{_start(what)} holds NaN or infinity ({count} of {numbers.size} numbers): a log of 0, an overflowing "
                    "exp, or a division by 0?")
    there = np.abs(right) > atol
    ratio = numbers[there] / right[there]
    factor = ratio[0] if ratio.size > 1 else 0
    if factor and not np.isclose(factor, 1) and np.allclose(numbers, factor * right, rtol=1e-6, atol=atol):
        raise Wrong(f"{_start(what)} is {factor:.6g} times what it should be, everywhere: look for a lost or doubled "
                    "factor.")
    worst = np.unravel_index(np.abs(numbers - right).argmax(), right.shape)
    place = f" at [{', '.join(map(str, map(int, worst)))}]" if right.ndim else ""
    raise Wrong(f"{_start(what)} is off by up to {abs(numbers[worst] - right[worst]):.3g}: yours is "
                f"{numbers[worst]:.6g}{place} where {right[worst]:.6g} is right.")


def _start(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _kind(got) -> str:
    if isinstance(got, tuple | list):
        return f"{len(got)} values" if got else "an empty list"
    return f"an array of shape {got.shape}" if hasattr(got, "shape") else f"{type(got).__name__}"


def _where(error) -> str:
    """The learner's last line on the way to the error."""
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != HERE]
    if not theirs:
        return ""
    return f" (line {theirs[-1].lineno}: {theirs[-1].line})" if theirs[-1].line else f" (line {theirs[-1].lineno})"
