"""Figure 2, upper row: the bound on MNIST against the samples seen, AEVB and wake-sleep, 3 to 200 latents."""

from paper.experiments.figure2 import draw, parts, rows

__all__ = ["PRESETS", "draw", "parts", "rows"]

FULL = {
    "title": "Figure 2, MNIST: the bound while training, 500 hidden units",
    "latents": [3, 5, 10, 20, 200], "axes": {"xlim": [1e5, 1e8], "ylim": [-150, -100]},
    "network": {"data": "mnist", "hidden": 500, "likelihood": "bernoulli"},
    "training": {"pick_samples": 120_000, "evaluate_every": 1, "matmul": "medium"},
}
PRESETS = {
    "quick": FULL | {
        "title": "As figure 2, on digits: the bound while training, 50 hidden units", "latents": [2, 5],
        "axes": {"xlim": [1e3, 1e5]}, "network": {"data": "digits", "hidden": 50, "likelihood": "bernoulli"},
        "training": {"pick_samples": 5000, "evaluate_every": 2, "matmul": "highest"}, "training_samples": 60_000,
    },
    "cpu": FULL | {"training_samples": 10_000_000},
    "gpu": FULL | {"training_samples": 100_000_000,
                   "training": {"pick_samples": 120_000, "evaluate_every": 5, "matmul": "high"}},
}
