"""`engine: art`: trainings by the Adversarial Robustness Toolbox, for those of its trainers that work on PyTorch.

    pgd     AdversarialTrainerMadryPGD
    trades  AdversarialTrainerTRADESPyTorch
    awp     AdversarialTrainerAWPPyTorch

Left out, with ART 1.20.1: its fast trainer (FBF) overwrites the optimizer's learning rate with a triangle up to 0.21,
which destroys a network under Adam without a word; OAAT asks for about fifteen undocumented keys; the IBP trainer makes
convolutions dense; the DeepZ trainer fails under numpy 2.4. Curriculum, multi-norm and noise have no trainer in ART.

ART takes every layer's output from an `nn.Sequential` and feeds doubles under numpy 2: a plain module that casts its
input and counts in units of scale avoids both.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from holdfast.model.attack.art import Scaled
from holdfast.model.attack.pgd import STEP_FACTOR
from holdfast.model.train.adversarial import Epoch, Training


class Trainer(Protocol):
    """What ART's trainers share."""

    def fit(self, x: NDArray[np.float32], y: NDArray[np.int64], *, batch_size: int, nb_epochs: int) -> None:
        """Trains the classifier it was made with."""


class ArtTraining(Training):
    """One training by ART, advanced epoch by epoch; the epoch is judged and kept as Holdfast's own are."""

    def advance(self) -> Epoch | None:
        """Fits one epoch at the learning rate of the recipe and returns its row of the curve.

        Raises:
            ModelError: a weight is not a finite number any more.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate
        scale = self.ball.scale.cpu()
        x, y = (self.x.cpu() / scale).numpy(), self.y.cpu().numpy()
        self.net.train()
        with _seeded(int(np.random.SeedSequence([self.seed, 3, self.state.epoch]).generate_state(1)[0])):
            self._trainer().fit(x, y, batch_size=self.config.batch, nb_epochs=1)
        for parameter in self.net.parameters():
            self._guard("weight", float(parameter.detach().abs().max()), self.state.batch)
        self.state.batch = self.batches - 1
        return self._end_epoch()

    def _trainer(self) -> Trainer:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.defences.trainer import (
            AdversarialTrainerAWPPyTorch,
            AdversarialTrainerMadryPGD,
            AdversarialTrainerTRADESPyTorch,
        )

        config, epsilon = self.config, self.ball.epsilon
        classifier = self._classifier(self.net, self.optimizer)
        budget = {"eps": epsilon, "eps_step": STEP_FACTOR * epsilon / config.attack_steps}
        if config.recipe == "pgd" and self.ball.is_box:
            return _typed(AdversarialTrainerMadryPGD(classifier, max_iter=config.attack_steps, **budget))
        attack = ProjectedGradientDescent(
            classifier,
            norm=self.ball.order,
            max_iter=config.attack_steps,
            num_random_init=1,
            batch_size=config.batch,
            verbose=False,
            **budget,
        )
        if config.recipe == "trades":
            return _typed(AdversarialTrainerTRADESPyTorch(classifier, attack, config.beta))
        twin = copy.deepcopy(self.net)
        proxy = self._classifier(twin, torch.optim.SGD(twin.parameters(), lr=0.01))
        gamma, beta = config.weight_step, config.beta
        return _typed(
            AdversarialTrainerAWPPyTorch(classifier, proxy, attack, mode="PGD", gamma=gamma, beta=beta, warmup=0)
        )

    def _classifier(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> object:
        from art.estimators.classification import PyTorchClassifier

        scale = self.ball.scale
        low, high = (
            np.asarray((limit / scale).cpu(), dtype=np.float32) for limit in (self.ball.lower, self.ball.upper)
        )
        with torch.no_grad():
            classes = net(self.x[:1]).shape[1]
        return PyTorchClassifier(
            model=Scaled(net, scale),
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer,
            input_shape=tuple(self.x.shape[1:]),
            nb_classes=classes,
            clip_values=(low, high),
            device_type="gpu" if self.x.is_cuda else "cpu",
        )


def _typed(trainer: Trainer) -> Trainer:
    """ART's classes have no types of their own."""
    return trainer


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """ART and its attacks draw from the global generators: they are set within and put back after."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(before)
