"""pytest's settings for the whole repository: the option --impl. (It has to be registered at the root.)

    pytest                              every level
    pytest --impl exercises/my_vae.py   the contract, on your own module
    pytest --impl=../elsewhere/vae.py   with = where it lies outside the repository, or pytest takes its folder for the root
"""

import os

# Before NumPy and PyTorch start their threads: these models are tiny, and threads that wait for each other take longer.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--impl", metavar="PATH", help="run the contract's checks on your own module instead of the levels")


def pytest_configure(config):
    """Loads the learner's module once, before anything runs; a module that cannot be loaded is one line, not a trace."""
    if config.getoption("--impl") is None:
        return
    from implementations import load_implementation

    from common.config import InputError
    try:
        config.learner = load_implementation(config.getoption("--impl"))
    except InputError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_ignore_collect(collection_path, config):
    """With --impl: a file without a check of the contract need not be imported."""
    if config.getoption("--impl") is not None and collection_path.suffix == ".py":
        return "pytest.mark.contract" not in collection_path.read_text("utf-8") or None


def pytest_generate_tests(metafunc):
    """The fixture `implementation`: each level, or the learner's module alone."""
    if "implementation" in metafunc.fixturenames:
        from implementations import LEVELS
        learner = getattr(metafunc.config, "learner", None)
        chosen = list(LEVELS.values()) if learner is None else [learner]
        metafunc.parametrize("implementation", chosen, ids=[each.name for each in chosen])


def pytest_collection_modifyitems(config, items):
    if config.getoption("--impl") is not None:
        others = [item for item in items if "contract" not in item.keywords]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "contract" in item.keywords]


def pytest_sessionfinish(session, exitstatus):
    """With --impl: a module of which nothing could be checked has not passed."""
    if session.config.getoption("--impl") is not None and exitstatus == pytest.ExitCode.OK:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if not reporter.stats.get("passed"):
            reporter.write_line("nothing was attempted: write at least one function of the contract", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
