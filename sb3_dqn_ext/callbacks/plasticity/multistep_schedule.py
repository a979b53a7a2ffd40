"""A callback that lets n and gamma of n-step returns follow schedules."""

from typing import Any

from stable_baselines3.common.buffers import NStepReplayBuffer

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.algorithm.schedule_specs import ScheduleSpec, check_range, make_schedule
from sb3_dqn_ext.algorithm.schedules import LinearSchedule, Schedule
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks
from sb3_dqn_ext.callbacks.plasticity.periodic import check_unit, step_counts
from sb3_dqn_ext.callbacks.plasticity.reset import ResetCallback
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["MultistepScheduleCallback"]


def check_buffer_of_schedules(model: Any, n_steps: Schedule | None, gamma: Schedule | None) -> None:
    """
    Check that training can follow schedules of n and gamma.

    :param model: the model
    :param n_steps: the schedule of n, if there is one
    :param gamma: the schedule of gamma, if there is one
    :raises ArgumentError: if it cannot
    """
    buffer, name = model.replay_buffer, type(model).__name__
    is_ours = isinstance(buffer, DQNReplayBuffer)
    follows_model = is_ours and hasattr(model, "updater")
    if n_steps is not None and not follows_model:
        raise UnsupportedError(
            f"a schedule of n_steps needs a DQNExt with a DQNReplayBuffer, and this is a {name} whose {type(buffer).__name__} "
            "has an n that does not change."
        )
    if gamma is not None and not follows_model and (isinstance(buffer, NStepReplayBuffer) or getattr(buffer, "gamma", None)):
        raise UnsupportedError(
            f"a schedule of gamma needs a DQNExt with a DQNReplayBuffer, and this is a {name} whose {type(buffer).__name__} "
            "has a gamma that does not change."
        )
    bounded_gamma = getattr(getattr(model.policy, "return_model", None), "gamma", None)
    if gamma is not None and bounded_gamma is not None:
        try:
            check_range("gamma", gamma, 0, bounded_gamma)
        except ArgumentError as error:
            bounds = f"Returns above those of returns_kwargs['gamma']={bounded_gamma!r} would be clipped: raise it"
            raise ArgumentError(f"{error} {bounds} to the largest gamma of the schedule.") from None
    if gamma is not None and is_ours and buffer.monte_carlo > 0:
        raise ArgumentError(
            f"a schedule of gamma does not fit monte_carlo={buffer.monte_carlo!r}: the replay buffer stores returns that are "
            "discounted by one gamma. Leave one of them out."
        )
    if n_steps is not None and buffer.td_lambda is not None:
        raise ArgumentError(
            f"a schedule of n_steps does not fit td_lambda={buffer.td_lambda!r}: the two define two returns. Leave one out."
        )
    if n_steps is not None:
        check_range("n_steps", n_steps, 1, buffer.buffer_size - buffer.optimize_memory_usage)


class MultistepScheduleCallback(RunCallback):
    """
    A callback that lets n and gamma of n-step returns follow schedules, as in BBF (Schwarzer et al., 2023,
    https://arxiv.org/abs/2305.19452): after each reset, n falls from 10 to 3 and gamma rises from 0.97 to 0.997 in 10,000
    gradient steps::

        MultistepScheduleCallback(
            n_steps={"name": "geometric", "start": 10, "end": 3, "steps": 10_000},
            gamma={"name": "geometric", "start": 0.97, "end": 0.997, "steps": 10_000, "asymptote": 1},
        )

    Both are read at the start of each rollout; n is rounded. ``train/n_steps`` and ``train/gamma`` are logged. During the run,
    they replace ``model.n_steps`` and ``model.gamma``. For other callbacks, and in a model that is saved in the middle of the
    run, these attributes have their original values. Make the model with the last gamma of the schedule, since diagnostics and
    later runs use it.

    The DQN of SB3 and the QRDQN of sb3-contrib can have a schedule of gamma if their ``n_steps`` is 1, and none of n.

    :param n_steps: the schedule of n: a mapping such as that above, or another argument of
        :func:`~sb3_dqn_ext.algorithm.schedule_specs.make_schedule`; None (default): n does not change
    :param gamma: the schedule of gamma; None (default): gamma does not change
    :param unit: the unit of the steps of both: ``"gradient_steps"`` (default), or ``"env_steps"``, counted over all
        environments. ``total_steps`` of a schedule is the length of the run in environment steps
    :param restart_at_resets: whether steps are counted from the last reset by a
        :class:`~sb3_dqn_ext.callbacks.ResetCallback` of the same run (default), instead of from the start of the run
    :raises ArgumentError: if there is no such schedule, or a value is out of its range; at the start of the run, if the model
        or its replay buffer cannot follow the schedules
    """

    def __init__(
        self,
        n_steps: ScheduleSpec | None = None,
        gamma: ScheduleSpec | None = None,
        unit: str = "gradient_steps",
        restart_at_resets: bool = True,
    ) -> None:
        super().__init__()
        check_unit(unit)
        check_type("restart_at_resets", restart_at_resets, bool, "True or False")
        if n_steps is None and gamma is None:
            raise ArgumentError("MultistepScheduleCallback needs a schedule: give n_steps, gamma or both.")
        self.n_steps = None if n_steps is None else make_schedule(n_steps)
        self.gamma = None if gamma is None else make_schedule(gamma)
        for name, schedule, high in (("n_steps", self.n_steps, float("inf")), ("gamma", self.gamma, 1)):
            if schedule is not None:
                check_range(name, schedule, low=1 if name == "n_steps" else 0, high=high)
            if isinstance(schedule, LinearSchedule) and unit == "gradient_steps":
                raise ArgumentError(
                    f"{name}={schedule!r} depends on the length of the run, which is known in environment steps only: take "
                    "unit='env_steps', or the schedule 'geometric' or 'piecewise'."
                )
        self.unit = unit
        self.restart_at_resets = restart_at_resets
        self.started_at: dict[str, int] = {}
        """the steps of each unit at the start of the run"""

    def _on_run_start(self, continues: bool) -> None:
        find_networks(self.model, type(self).__name__)
        check_buffer_of_schedules(self.model, self.n_steps, self.gamma)
        if not continues:
            self.started_at = step_counts(self.model)

    def _before_rollout(self) -> None:
        step, total_steps = self._steps(), self.model._total_timesteps
        if self.n_steps is not None:
            self._set("n_steps", round(self.n_steps.value(step, total_steps)))
        if self.gamma is not None:
            self._set("gamma", self.gamma.value(step, total_steps))

    def _steps(self) -> int:
        """Return the steps since the start of the run, or since the last reset."""
        resets = [one for one in self.run.callbacks if isinstance(one, ResetCallback)] if self.restart_at_resets else []
        since_start = step_counts(self.model)[self.unit] - self.started_at[self.unit]
        return min([since_start, *(one.steps_since_act(self.unit) for one in resets)])

    def _set(self, name: str, value: float) -> None:
        self.run.replaced.add(name, value)
        self.logger.record(f"train/{name}", value)
