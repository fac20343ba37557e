"""A classifier that reads drawn digits: what people would say of them, as a number.

    reader = Reader(images, hidden=200, epochs=10)
    reader(model.sample(z, generator))                      # {"read": share it is sure of, "kinds": of digits among them}

It was trained on real images and knows binary ones only; the share it reads of real test images is what to compare with.
"""

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier

from paper.images import Images

CONFIDENT = 0.9                         # the probability of its first choice, at least, to be sure


class Reader:
    """A classifier of binary images, trained on the training images as the models see them: binarized, a fresh draw each
    epoch; `accuracy` on the test images."""

    def __init__(self, images: Images, hidden: int, epochs: int, seed: int = 0):
        self.classifier = MLPClassifier((hidden,), batch_size=100, random_state=seed)
        generator = torch.Generator(images.x_train.device).manual_seed(seed)
        everything = torch.arange(len(images.x_train), device=images.x_train.device)
        y = images.y_train
        for _ in range(epochs):
            x, _ = images.minibatch(everything, generator)
            self.classifier.partial_fit(x.cpu().numpy(), y.cpu().numpy(), classes=y.unique().cpu().numpy())
        self.accuracy = float(self.classifier.score(images.x_test.cpu().numpy(), images.y_test.cpu().numpy()))

    def digits(self, x):
        """What it takes each of the binary images x (N, D) for, sure or not: its first choices, (N,), where x is."""
        return torch.from_numpy(self.classifier.predict(x.cpu().numpy())).to(x.device)

    def __call__(self, x) -> dict[str, float]:
        """What it reads in binary images x (N, D): the share it is sure of, and how many kinds of digits."""
        p = self.classifier.predict_proba(x.cpu().numpy())                                        # (N, K)
        share = np.bincount(p.argmax(axis=1), minlength=p.shape[1]) / len(p)
        share = share[share > 0]
        return {"read": float((p.max(axis=1) >= CONFIDENT).mean()), "kinds": float(np.exp(-(share * np.log(share)).sum()))}
