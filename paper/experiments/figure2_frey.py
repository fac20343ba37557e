"""Figure 2, lower row: the bound on Frey Face against the samples seen, AEVB and wake-sleep, 2 to 20 latents."""

from paper.experiments.figure2 import draw, parts, rows

__all__ = ["PRESETS", "draw", "parts", "rows"]

FULL = {
    "title": "Figure 2, Frey Face: the bound while training, 200 hidden units",
    "latents": [2, 5, 10, 20], "axes": {"xlim": [1e5, 1e8], "ylim": [0, 1600]},
    "network": {"data": "frey", "hidden": 200, "likelihood": "gaussian"},
    "training": {"pick_samples": 120_000, "evaluate_every": 8, "matmul": "highest"},
}
PRESETS = {
    "quick": FULL | {
        "title": "As figure 2, on gray digits: the bound while training, 50 hidden units",
        "latents": [2, 5], "axes": {"xlim": [1e3, 1e5]}, "training_samples": 20_000,
        "network": {"data": "digits", "hidden": 50, "likelihood": "gaussian"},
        "training": {"pick_samples": 20_000, "evaluate_every": 2, "matmul": "highest"},
    },
    "cpu": FULL | {"training_samples": 10_000_000},
    "gpu": FULL | {"training_samples": 100_000_000,
                   "training": {"pick_samples": 120_000, "evaluate_every": 64, "matmul": "high"}},
}
