"""Monte Carlo EM, appendix E: maximum likelihood, or MAP, without an encoder. The paper's third competitor in figure 3.

    em = MonteCarloEM(log_joint_of(model), torch.optim.Adagrad(model.decoder.parameters(), lr, weight_decay=1 / N), z)
    terms = em.step(x, rows, generator)          # x (B, D): the images `rows` of the training set

E step: for each image of a minibatch, one HMC transition of 10 leapfrog steps towards p(z|x), from where its own chain
stood after its last visit, with its own step size, tuned to 90% acceptance. M step: 5 weight updates on log p(x, z) at
the z acquired. Each image has a chain of its own, so that the algorithm is no online one: a new image has no chain, and
on a large training set chains grow stale between two visits.
The optimizer holds the prior on the weights, N(0, I), as weight_decay = 1 / N (N training images).
Letters: N training images, B of a minibatch, D pixels, J latents. Units: nats per image.
"""

from collections.abc import Callable

import torch

from common.config import InputError
from paper.hmc import start_chains, transition, tuned

LEAPFROG_STEPS, UPDATES = 10, 5         # appendix E
TUNING_RATE = 0.5                       # step sizes follow a posterior that moves as the weights learn: never frozen


class MonteCarloEM:
    """The chains of a training set and the algorithm's steps. They change its z, its step_size, and the weights.

    log_joint    log_joint(z (B, J), x (B, D)) -> log p(x, z) (B,), of a model whose weights the optimizer holds
    z            (N, J), where the chains start, for example a draw from the prior
    transitions  of HMC in an E step
    """

    def __init__(self, log_joint: Callable, optimizer: torch.optim.Optimizer, z, step_size: float = 0.1,
                 transitions: int = 1, leapfrog_steps: int = LEAPFROG_STEPS, updates: int = UPDATES):
        if z.ndim != 2 or not len(z):
            raise InputError(f"z has shape {tuple(z.shape)}: give (N, J), a starting point for each training image")
        if min(transitions, leapfrog_steps, updates) < 1 or step_size <= 0:
            raise InputError(f"transitions {transitions}, leapfrog_steps {leapfrog_steps}, updates {updates}, "
                             f"step_size {step_size}: give at least 1 of each, and a positive step size")
        self.log_joint, self.optimizer = log_joint, optimizer
        self.z = z.detach().clone()                                      # (N, J)
        self.step_size = torch.full_like(self.z[:, :1], step_size)       # (N, 1)
        self.transitions, self.leapfrog_steps, self.updates = transitions, leapfrog_steps, updates

    @property
    def gradients_per_image(self) -> int:
        """Gradient evaluations for each image of a minibatch in step(): 16 by default, where AEVB takes one."""
        return 1 + self.transitions * self.leapfrog_steps + self.updates # 1: where the chain stood, with weights of now

    def e_step(self, x, rows, generator=None):
        """Moves the chains of these rows, and tunes their step sizes. -> mean acceptance, 0-d. No weight changes."""
        if len(rows) != len(x):
            raise InputError(f"{len(rows)} rows for {len(x)} images: give the row number of each image")

        def log_density(z):
            return self.log_joint(z, x)

        chains, total = start_chains(log_density, self.z[rows], self.step_size[rows]), 0.0
        for _ in range(self.transitions):
            chains, acceptance = transition(log_density, chains, self.leapfrog_steps, generator)
            total = total + acceptance.mean()
        self.z[rows] = chains.z
        self.step_size[rows] = tuned(chains.step_size, acceptance, TUNING_RATE)
        return total / self.transitions

    def m_step(self, x, rows):
        """Weight updates on mean log p(x, z) at the chains' z, eq. 3.6. -> its last value but one, 0-d. z stays."""
        z = self.z[rows]
        for _ in range(self.updates):
            log_joint = self.log_joint(z, x).mean()
            self.optimizer.zero_grad()
            (-log_joint).backward()
            self.optimizer.step()
        return log_joint.detach()

    def step(self, x, rows, generator=None) -> dict:
        """An E and an M step on images x (B, D), the rows (B,) of the training set, none of them twice.

        -> {"log_joint", "acceptance"}, batch means, 0-d. Raises InputError where log p(x, z) is no longer finite.
        """
        acceptance = self.e_step(x, rows, generator)
        return {"log_joint": self.m_step(x, rows), "acceptance": acceptance}

    def state_dict(self) -> dict:
        """The chains, to be kept beside the weights and the optimizer's own state: {"z" (N, J), "step_size" (N, 1)}."""
        return {"z": self.z.clone(), "step_size": self.step_size.clone()}

    def load_state_dict(self, state: dict):
        """Goes on from a state_dict(). Raises InputError where that is of another training set."""
        for name in ("z", "step_size"):
            if name not in state or state[name].shape != getattr(self, name).shape:
                raise InputError(f"the state has no {name} of shape {tuple(getattr(self, name).shape)}: it belongs to "
                                 "another training set or model")
        self.z.copy_(state["z"])
        self.step_size.copy_(state["step_size"])
