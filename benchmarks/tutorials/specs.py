"""The five tutorials: environments, reported results, and results of ports of their code."""

from dataclasses import dataclass

import gymnasium as gym


@dataclass(frozen=True)
class Quantity:
    """
    A line of a tutorial's table.

    :param label: the label of the line
    :param column: the column of the rows
    :param digits: the number of decimal places
    """

    label: str
    column: str
    digits: int = 1


@dataclass(frozen=True)
class Tutorial:
    """
    One of the tutorials.

    :param name: the name of its configurations, its page and its pictures
    :param title: the name in tables and pictures
    :param env_id: the id of the environment
    :param reported: the result that the tutorial reports
    :param port_result: the result of a port of its code, line by line, with ten seeds
    :param threshold: a training return
    :param window: the number of successive episodes whose mean return is compared with the threshold
    :param in_episodes: whether the length of training is a number of episodes instead of environment steps
    :param eval_freq: the number of environment steps between the evaluations that choose the best checkpoint; None: no
        evaluations, as they take time
    :param timed: whether it is trained with nothing else running, with the plain loop after the improved variant
    :param measures_values: whether losses are logged, and predicted values are compared with realised returns
    :param counts_trials: whether the tutorial counts completed trials
    :param records_video: whether a video is recorded, and random actions are played for comparison
    """

    name: str
    title: str
    env_id: str
    reported: str
    port_result: str
    threshold: float = 195.0
    window: int = 10
    in_episodes: bool = False
    eval_freq: int | None = None
    timed: bool = False
    measures_values: bool = False
    counts_trials: bool = False
    records_video: bool = False

    @property
    def solved_return(self) -> float:
        """The mean return from which gymnasium regards the environment as solved."""
        threshold = gym.spec(self.env_id).reward_threshold
        assert threshold is not None
        return threshold

    @property
    def threshold_label(self) -> str:
        """The label of the column ``first_at_threshold``."""
        if self.counts_trials:
            return "first trial that is completed"
        return f"first episode at which the last {self.window} have a mean of {self.threshold:g}"

    @property
    def quantities(self) -> list[Quantity]:
        """The lines of its table."""
        quantities = [
            Quantity("greedy return, last model", "greedy_last"),
            Quantity("greedy return, best checkpoint", "greedy_best"),
            Quantity("mean of the last 100 returns of training", "last_100"),
            Quantity(self.threshold_label, "first_at_threshold", 0),
            Quantity("episodes of training", "episodes", 0),
        ]
        if self.counts_trials:
            quantities.append(Quantity("trials completed among the first 100", "completed_100", 0))
        if self.timed:
            quantities += [
                Quantity("seconds of training", "train_s"),
                Quantity("seconds of the plain loop", "loop_s"),
            ]
        return quantities


TUTORIALS = [
    Tutorial(
        "monte_carlo_multi_head",
        "Monte-Carlo returns, a layer for each action",
        "CartPole-v0",
        reported="mixed results",
        port_result="greedy 9.6 (9.2 to 170), 1 of 10 seeds above 100",
        in_episodes=True,
        eval_freq=2_000,
        measures_values=True,
    ),
    Tutorial(
        "terminal_penalty",
        "A penalty at the end, stored twice",
        "CartPole-v1",
        reported="490 in one greedy game, 16 at random",
        port_result="greedy 191 (116 to 363), random 22",
        threshold=475.0,
        eval_freq=1_000,
        records_video=True,
    ),
    Tutorial(
        "mountain_car_soft_target",
        "A target network that follows softly",
        "MountainCar-v0",
        reported="completes in under 100 trials",
        port_result="0 to 3 of 100 trials completed, greedy -200",
        threshold=-199.0,
        window=1,
        eval_freq=2_000,
        counts_trials=True,
    ),
    Tutorial(
        "vectorized_envs",
        "32 environments at once",
        "CartPole-v0",
        reported="43.1 s for the whole run",
        port_result="200 in the last 100 episodes of training",
        timed=True,
    ),
    Tutorial(
        "exponential_decay",
        "Epsilon decays exponentially",
        "CartPole-v0",
        reported="195",
        port_result="193 (145 to 199) in the last 100 episodes of training; mean of 10 at 195 after 801 episodes (621 to 902)",
        in_episodes=True,
        eval_freq=2_500,
    ),
]
BY_NAME = {tutorial.name: tutorial for tutorial in TUTORIALS}
