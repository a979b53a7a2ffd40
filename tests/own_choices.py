"""One choice of each kind as a user would define it, for tests that import this module by its name."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from torch import nn

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.exploration import Exploration, ExplorationContext
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.schedules import Schedule
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.algorithm.value_models import ExpectedReturns, ReturnModel
from sb3_dqn_ext.algorithm.value_models.expected import Loss
from sb3_dqn_ext.networks.encoders import Encoder
from sb3_dqn_ext.networks.heads import Head, HeadSizes
from sb3_dqn_ext.networks.norms import HiddenLayer, Norm, NormFunction
from sb3_dqn_ext.replay import Sampler


class Mellow(TargetPolicy):
    """
    A softmax of the target network's Q-values.

    :param temperature: the temperature of the softmax
    """

    needs_online_net = False

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, batch: Batch, online: Any, target: Any, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return th.softmax(q_t / self.temperature, dim=1), batch.rewards


class Counting(Mellow):
    """A target policy that changes at each call, so that it cannot be compiled."""

    n_calls = 0

    def __call__(self, batch: Batch, online: Any, target: Any, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        self.n_calls += 1
        pi, rewards = super().__call__(batch, online, target, q_t)
        return pi, rewards + 0.01 * self.n_calls


class Persistent(Exploration):
    """
    A random action that is repeated some times, and becomes rarer with each one that was begun.

    It has state of both sorts: how often each environment still repeats its action, and the number of actions that were begun.

    :param length: the number of times that an action is taken
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.n_begun = 0
        self.recent = np.zeros(3)

    def __call__(self, context: ExplorationContext) -> npt.NDArray[Any]:
        left = context.state.setdefault("left", np.zeros(context.n_envs, np.int64))
        kept = context.state.setdefault("kept", np.zeros(context.n_envs, np.int64))
        for env in range(context.n_envs):
            if left[env] == 0 and context.generator.random() < context.rate / (1 + 0.02 * self.n_begun):
                left[env], kept[env] = self.length, context.random_action(env)
                self.n_begun += 1
                self.recent = np.append(self.recent[1:], float(kept[env]))
        running = left > 0
        left[running] -= 1
        return np.where(running, kept, context.greedy_actions())


class Fixed(Persistent):
    """The same with a rate that no argument changes."""

    default_rate = 0.3


class Recent(Sampler):
    """
    Draws from the newest rows.

    :param share: the share of the stored rows from which it draws
    """

    tracks_indices = False

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, share: float = 1.0) -> None:
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.share = share
        self.n_drawn = 0

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
        newest = max(1, round(self.share * n_rows))
        rows = (first_row + n_rows - 1 - np.random.randint(0, newest, size=batch_size)) % self.n_rows
        self.n_drawn += batch_size
        return rows * self.n_envs + self.n_drawn % self.n_envs, None


class Pair(ExpectedReturns):
    """
    Two predictions of the expected return of each action, each fitted to the mean of both.

    :param scale: the unit of the predictions
    :param loss: the loss of each of the two
    """

    n_params = 2

    def __init__(self, scale: float, loss: Any = "huber") -> None:
        super().__init__(loss)
        self.scale = scale

    def mean(self, params: Prediction) -> th.Tensor:
        return params.values.mean(dim=-1) * self.scale

    def target(self, params: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        returns = rewards + discounts * (pi * self.mean(params)).sum(dim=1)
        return Prediction((returns / self.scale).unsqueeze(-1).expand(-1, 2))

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        return self.loss_function(params.values, target.values).mean(dim=-1)

    def td_errors(self, params: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        return (target.values - params.values.detach()).mean(dim=-1)


class Gated(Head):
    """Advantages whose size a gate decides."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*sizes.trunk())
        self.values = nn.Linear(sizes.hidden_dim, sizes.n_actions * sizes.n_params)
        self.gate = nn.Linear(sizes.hidden_dim, 1)
        self.shape = -1, sizes.n_actions, sizes.n_params

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        values: th.Tensor = self.values(hidden) * self.gate(hidden).sigmoid()
        return values.view(self.shape)


class Pooled(Encoder):
    """A convolution and the largest output of each channel."""

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        return [*norm(nn.Conv2d(n_channels, 6, kernel_size=2)), nn.ELU(), nn.AdaptiveMaxPool2d(1)]


class Scaled(Norm):
    """A layer normalisation without parameters."""

    def __call__(self, layer: HiddenLayer) -> list[nn.Module]:
        if isinstance(layer, nn.Conv2d):
            return [layer, nn.GroupNorm(1, layer.out_channels, affine=False)]
        return [layer, nn.LayerNorm(layer.out_features, elementwise_affine=False)]


def root_mean_square(layer: HiddenLayer) -> list[nn.Module]:
    """The same without the mean, and for dense layers only, as a function."""
    return [layer, nn.RMSNorm(layer.out_features)] if isinstance(layer, nn.Linear) else [layer]


class LogCosh(Loss):
    """The logarithm of the hyperbolic cosine of the error."""

    def __call__(self, prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
        return th.log(th.cosh((prediction - target).clamp(-20, 20)))


def quartic(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """The fourth power of the error, as a function."""
    return (prediction - target) ** 4


def squared_values(q_values: th.Tensor, batch: Batch) -> th.Tensor:
    """A loss of all Q-values, as a function."""
    return 0.1 * (q_values**2).sum(dim=1)


class Stairs(Schedule):
    """
    A number that is halved after equal numbers of steps.

    :param start: the number at the first step
    :param every: the number of steps between two halvings
    """

    def __init__(self, start: float, every: int = 40) -> None:
        self.start = start
        self.every = every

    def value(self, step: int, total_steps: int) -> float:
        return float(self.start * 0.5 ** (step // self.every))


# objects that have dotted names

mellow = Mellow(0.5)
persistent = Persistent(2)
pair = Pair(2.0, "mse")
log_cosh = LogCosh()
stairs = Stairs(0.9)
number = 3


# classes that are not what they should be


class Nothing:
    """A class that has no method of any choice."""


class OnlyAMean(ReturnModel):
    """A return model that lacks most of its methods."""

    def mean(self, params: Prediction) -> th.Tensor:
        return params.values.squeeze(-1)


class Learned(ExpectedReturns):
    """A return model with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(th.ones(1))


class Renamed(Fixed):
    """An exploration whose schedule has a name that no other has."""

    schedule_key = "rate"


class Narrow(Gated):
    """A head with one output too few."""

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        return super().outputs(hidden)[:, 1:]
