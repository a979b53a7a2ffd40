"""
The equations of torch's optimizers for one flat tensor of all parameters. Shapes: P parameters.

Each rule exists in two forms. :meth:`OptimizerRule.eager_step` has the operations of torch's optimizer in their order, so that
its results have the same bits. :meth:`OptimizerRule.tensor_step` is traced once and then called with the numbers of each step
as a tensor.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch as th

__all__ = ["RULES", "AdamRule", "OptimizerRule", "RAdamRule", "RMSpropRule"]

Group = Mapping[str, Any]
"""The settings of an optimizer, one of its ``param_groups``."""


class OptimizerRule(ABC):
    """The equations of one of torch's optimizers."""

    averages: ClassVar[tuple[str, ...]]
    """The names of the state tensors with the shape of a parameter, the keys of torch's state."""
    constants: ClassVar[tuple[str, ...]]
    """The settings that are constants in a compiled function."""
    unsupported: ClassVar[tuple[str, ...]] = ("maximize", "differentiable", "capturable")
    """The settings that must be off."""

    @abstractmethod
    def step_coefficients(self, group: Group, step: int) -> tuple[float, ...]:
        """
        Compute the numbers of a step that depend on its number or on the learning rate.

        :param group: the settings
        :param step: the number t of the step, which begins with 1
        """

    @abstractmethod
    def eager_step(
        self, parameters: th.Tensor, gradient: th.Tensor, averages: Sequence[th.Tensor], step: float, group: Group
    ) -> None:
        """
        Make a step in place, with the bits of torch's optimizer on a CPU.

        :param parameters: (P,) parameters theta
        :param gradient: (P,) gradient g, to which a weight decay that is not decoupled has been added
        :param averages: (P,) state tensors, in the order of :attr:`averages`
        :param step: the number t of the step
        :param group: the settings
        """

    @abstractmethod
    def tensor_step(
        self,
        parameters: th.Tensor,
        gradient: th.Tensor,
        averages: Sequence[th.Tensor],
        coefficients: Sequence[th.Tensor],
        group: Group,
    ) -> None:
        """
        Make the same step in place, with rounding errors, as a function of tensors.

        :param parameters: (P,) parameters theta
        :param gradient: (P,) gradient g, to which a weight decay that is not decoupled has been added
        :param averages: (P,) state tensors, in the order of :attr:`averages`
        :param coefficients: the () results of :meth:`step_coefficients`; the first is the learning rate
        :param group: the settings, of which only :attr:`constants` are used
        """


def decay_weights(parameters: th.Tensor, gradient: th.Tensor, rate: float | th.Tensor, group: Group) -> th.Tensor:
    """
    Apply the weight decay: to the parameters in place if it is decoupled (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101, algorithm 2), else to the gradient.

    :param parameters: (P,) parameters
    :param gradient: (P,) gradient, which is not changed
    :param rate: the learning rate
    :param group: the settings
    :return: (P,) the gradient of the step
    """
    decay = group["weight_decay"]
    if not decay:
        return gradient
    if group.get("decoupled_weight_decay"):
        parameters.mul_(1 - rate * decay)
        return gradient
    return gradient.add(parameters, alpha=decay)


def update_moments(gradient: th.Tensor, averages: Sequence[th.Tensor], group: Group) -> None:
    """
    Update the running averages of the gradient and of its square in place::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2

    :param gradient: (P,) gradient g
    :param averages: (P,) first moments m, (P,) second moments v
    :param group: ``betas``
    """
    (exp_avg, exp_avg_sq), (beta1, beta2) = averages, group["betas"]
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)


class AdamRule(OptimizerRule):
    """
    Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1), and AdamW with a decoupled weight decay, with the
    moments m and v of :func:`update_moments`::

        theta = theta - lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)
    """

    averages = ("exp_avg", "exp_avg_sq")
    constants = ("betas", "eps", "weight_decay", "decoupled_weight_decay")
    unsupported = ("amsgrad", "fused", *OptimizerRule.unsupported)

    def step_coefficients(self, group: Group, step: int) -> tuple[float, ...]:
        (beta1, beta2), rate = group["betas"], group["lr"]
        return rate, rate / (1 - beta1**step), (1 - beta2**step) ** -0.5

    def eager_step(
        self, parameters: th.Tensor, gradient: th.Tensor, averages: Sequence[th.Tensor], step: float, group: Group
    ) -> None:
        update_moments(gradient, averages, group)
        (exp_avg, exp_avg_sq), (beta1, beta2) = averages, group["betas"]
        size, correction = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
        parameters.addcdiv_(exp_avg, (exp_avg_sq.sqrt() / correction).add_(group["eps"]), value=-size)

    def tensor_step(
        self,
        parameters: th.Tensor,
        gradient: th.Tensor,
        averages: Sequence[th.Tensor],
        coefficients: Sequence[th.Tensor],
        group: Group,
    ) -> None:
        update_moments(gradient, averages, group)
        (exp_avg, exp_avg_sq), (_, size, scale) = averages, coefficients
        parameters.sub_(size * exp_avg / (exp_avg_sq.sqrt() * scale + group["eps"]))


class RAdamRule(OptimizerRule):
    """
    Rectified Adam (Liu et al., 2020, https://arxiv.org/abs/1908.03265, algorithm 2), with the moments m and v of
    :func:`update_moments`. While the variance of the adaptive rate cannot be estimated, the step has no adaptive rate::

        rho_t = rho_inf - 2 * t * beta2**t / (1 - beta2**t),  rho_inf = 2 / (1 - beta2) - 1
        r_t = sqrt((rho_t - 4) * (rho_t - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho_t))
        theta = theta - lr * m / (1 - beta1**t) * (r_t * sqrt(1 - beta2**t) / (sqrt(v) + eps) if rho_t > 5 else 1)
    """

    averages = ("exp_avg", "exp_avg_sq")
    constants = ("betas", "eps", "weight_decay", "decoupled_weight_decay")
    unsupported = ("foreach", *OptimizerRule.unsupported)  # torch's foreach has another order of operations

    def step_coefficients(self, group: Group, step: int) -> tuple[float, ...]:
        (beta1, beta2), rate = group["betas"], group["lr"]
        size, rectification = rate / (1 - beta1**step), rectification_term(beta2, step)
        if rectification is None:
            return rate, size, 0.0
        return rate, size, size * rectification * (1 - beta2**step) ** 0.5

    def eager_step(
        self, parameters: th.Tensor, gradient: th.Tensor, averages: Sequence[th.Tensor], step: float, group: Group
    ) -> None:
        update_moments(gradient, averages, group)
        (exp_avg, exp_avg_sq), (beta1, beta2) = averages, group["betas"]
        change = (exp_avg / (1 - beta1**step)).mul_(group["lr"])
        rectification = rectification_term(beta2, step)
        if rectification is not None:
            adaptive_rate = (1 - beta2**step) ** 0.5 / exp_avg_sq.sqrt().add_(group["eps"])
            change.mul_(adaptive_rate).mul_(rectification)
        parameters.sub_(change)

    def tensor_step(
        self,
        parameters: th.Tensor,
        gradient: th.Tensor,
        averages: Sequence[th.Tensor],
        coefficients: Sequence[th.Tensor],
        group: Group,
    ) -> None:
        update_moments(gradient, averages, group)
        (exp_avg, exp_avg_sq), (_, size, rectified_size) = averages, coefficients
        rectified = rectified_size / (exp_avg_sq.sqrt() + group["eps"])
        parameters.sub_(exp_avg * th.where(rectified_size > 0, rectified, size))


def rectification_term(beta2: float, step: float) -> float | None:
    """
    Compute the rectification term r_t of :class:`RAdamRule`.

    :param beta2: the decay of the second moments
    :param step: the number t of the step
    :return: r_t; None if rho_t is at most 5, where torch makes no rectified step
    """
    rho_inf = 2 / (1 - beta2) - 1
    rho_t = rho_inf - 2 * step * (beta2**step) / (1 - beta2**step)
    if rho_t <= 5:
        return None
    return float(((rho_t - 4) * (rho_t - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho_t)) ** 0.5)


class RMSpropRule(OptimizerRule):
    """
    RMSprop (Tieleman and Hinton, 2012, lecture 6.5) without momentum and not centred::

        v = alpha * v + (1 - alpha) * g**2
        theta = theta - lr * g / (sqrt(v) + eps)
    """

    averages = ("square_avg",)
    constants = ("alpha", "eps", "weight_decay")
    unsupported = ("momentum", "centered", *OptimizerRule.unsupported)

    def step_coefficients(self, group: Group, step: int) -> tuple[float, ...]:
        return (group["lr"],)

    def eager_step(
        self, parameters: th.Tensor, gradient: th.Tensor, averages: Sequence[th.Tensor], step: float, group: Group
    ) -> None:
        parameters.addcdiv_(gradient, self._root(gradient, averages, group), value=-group["lr"])

    def tensor_step(
        self,
        parameters: th.Tensor,
        gradient: th.Tensor,
        averages: Sequence[th.Tensor],
        coefficients: Sequence[th.Tensor],
        group: Group,
    ) -> None:
        parameters.sub_(coefficients[0] * gradient / self._root(gradient, averages, group))

    @staticmethod
    def _root(gradient: th.Tensor, averages: Sequence[th.Tensor], group: Group) -> th.Tensor:
        """Update v in place, and return (P,) ``sqrt(v) + eps``."""
        (square_avg,), alpha = averages, group["alpha"]
        square_avg.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        return square_avg.sqrt().add_(group["eps"])


RULES: dict[type[th.optim.Optimizer], OptimizerRule] = {
    th.optim.Adam: AdamRule(),
    th.optim.AdamW: AdamRule(),
    th.optim.RAdam: RAdamRule(),
    th.optim.RMSprop: RMSpropRule(),
}
"""The rule of each optimizer that is supported."""
