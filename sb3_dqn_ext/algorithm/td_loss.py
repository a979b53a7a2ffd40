"""The TD loss of a batch. Shapes: B batch size, A actions, K distribution parameters per action."""

from contextlib import nullcontext

import torch as th
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_dqn_ext.algorithm.action_masks import legal_actions, mask_q_values
from sb3_dqn_ext.algorithm.auxiliary_losses import AUXILIARY_LOSSES, AuxiliaryLoss
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.fitted_actions import Fit
from sb3_dqn_ext.algorithm.predictions import Prediction, predict, stochastic_predictions
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES, TargetPolicy
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, ReturnModel
from sb3_dqn_ext.algorithm.value_models.base import compute_q_values
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["TDLoss", "TDTarget"]


class TDLoss(nn.Module):
    """
    A module that computes the losses of a batch of transitions.

    It is a module so that ``torch.func.functional_call`` can evaluate it with other parameters, as a pure function. For
    expected returns the loss of a transition is ``loss(Q(s, a), y)``, with the target::

        y = r + gamma**n * sum_b pi(b | s') Q_target(s', b)

    :param online_net: the network that is trained
    :param target_net: the target network, or the online network itself
    :param returns: the return model of both networks
    :param target_policy: the policy pi at the next state
    :param fit: a function that computes losses and TD errors from the predictions, see
        :mod:`~sb3_dqn_ext.algorithm.fitted_actions`
    :param auxiliary_loss: a loss that is added; None (default): none
    """

    def __init__(
        self,
        online_net: QNetwork,
        target_net: QNetwork,
        returns: ReturnModel,
        target_policy: TargetPolicy,
        fit: Fit,
        auxiliary_loss: AuxiliaryLoss | None = None,
    ) -> None:
        super().__init__()
        self.online_net = online_net
        self.target_net = target_net
        self.returns = returns
        self.target_policy = target_policy
        self.fit = fit
        self.auxiliary_loss = auxiliary_loss
        # tensors of other shapes would be broadcast, and another loss would be learned
        self._has_user_parts = (
            type(target_policy) not in TARGET_POLICIES.values() or type(returns) not in RETURN_MODELS.values()
        )
        self._stochastic_nets = [
            net for net in dict.fromkeys([online_net, target_net]) if getattr(net, "is_stochastic", False)
        ]

    @property
    def targets_are_fixed(self) -> bool:
        """
        Whether updates of the online network leave the targets as they are, so that several updates can share one computation.
        """
        return self.target_net is not self.online_net and not self._stochastic_nets and not self.target_policy.needs_online_net

    def forward(self, batch: Batch, target: Prediction | None = None) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute losses and TD errors. The suffix ``tm1`` marks the time step t - 1 of the observation, ``t`` that of the next
        one.

        :param batch: B transitions
        :param target: (B, K) targets; None (default): they are computed from the batch
        :return: (B,) losses, (B,) TD errors
        """
        online_net, target_net = self.online_net, self.target_net
        with stochastic_predictions(*self._stochastic_nets) if self._stochastic_nets else nullcontext():
            if target is None:
                target = self.target(batch)
            prediction_tm1 = predict(online_net, batch.observations, "online")
            legal = legal_actions(online_net, batch.observations)
            losses, td_errors = self.fit(
                self.returns, prediction_tm1, batch.actions, target, lambda: predict(target_net, batch.observations), legal
            )
        if self._has_user_parts:
            shape = batch.rewards.shape
            _check_shapes(self.returns, "(B,) losses and (B,) TD errors", (losses, td_errors), shape, shape)
        if self.auxiliary_loss is not None:
            losses = losses + self._auxiliary_losses(self.auxiliary_loss, prediction_tm1, batch, legal)
        return losses, td_errors

    def _auxiliary_losses(
        self, loss: AuxiliaryLoss, prediction: Prediction, batch: Batch, legal: th.Tensor | None
    ) -> th.Tensor:
        """Return the (B,) auxiliary losses of a (B, A, K) prediction, with the (B, A) mask of legal actions."""
        q_values = self.returns.mean(prediction) if prediction.q_values is None else prediction.q_values
        losses = loss(mask_q_values(q_values, legal), batch)
        if type(loss) not in AUXILIARY_LOSSES.values():
            _check_shapes(loss, "(B,) losses", losses, batch.rewards.shape)
        return losses

    def target(self, batch: Batch) -> Prediction:
        """
        Compute the targets of a batch, without gradients.

        :param batch: B transitions
        :return: (B, K) distribution parameters
        """
        online_net, target_net, returns = self.online_net, self.target_net, self.returns
        if batch.next_observations is None:
            return self._target_without_next_state(batch)
        with th.no_grad():
            prediction_t = predict(target_net, batch.next_observations, "target")
            q_t = compute_q_values(target_net, batch.next_observations, prediction_t, returns)
            result = self.target_policy(batch, online_net, target_net, q_t)
            if self._has_user_parts:
                _check_shapes(returns, "(B, A) Q-values", (q_t,), prediction_t.values.shape[:2])
                what = "(B, A) probabilities and (B,) rewards"
                _check_shapes(self.target_policy, what, result, q_t.shape, batch.rewards.shape)
            pi_t, rewards = result
            return returns.target(prediction_t, pi_t, rewards, batch.discounts)

    def _target_without_next_state(self, batch: Batch) -> Prediction:
        """Compute the (B, K) targets of returns with discount 0, for which any prediction at the next state would do."""
        dtype = next(self.online_net.parameters()).dtype
        any_prediction = Prediction(batch.rewards.new_zeros((len(batch.rewards), 1, self.returns.n_params), dtype=dtype))
        pi = th.ones_like(any_prediction.values[:, :, 0])  # of a single action
        return self.returns.target(any_prediction, pi, batch.rewards, batch.discounts)


def _check_shapes(source: object, what: str, result: object, *shapes: th.Size) -> None:
    """
    Check the shapes of a result that may come from a class of the user.

    :param source: the return model or the target policy
    :param what: a description of the tensors, for the message
    :param result: its result
    :param shapes: the shapes that the tensors must have
    :raises ArgumentError: if the result has another form
    """
    parts = result if isinstance(result, tuple | list) else (result,)
    if [getattr(part, "shape", None) for part in parts] != [*shapes]:
        wanted = ", ".join(str(tuple(shape)) for shape in shapes)
        found = ", ".join(str(tuple(part.shape)) if isinstance(part, th.Tensor) else type(part).__name__ for part in parts)
        raise ArgumentError(
            f"{type(source).__name__} must return {what}: tensors of the shapes {wanted}. It has returned {found}."
        )


class TDTarget(nn.Module):
    """
    A module that computes the targets of a loss, for ``torch.func.functional_call``.

    :param loss: the loss
    """

    def __init__(self, loss: TDLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, batch: Batch) -> Prediction:
        """Compute the (B, K) targets of B transitions."""
        return self.loss.target(batch)
