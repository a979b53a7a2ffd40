"""The five tutorials: what they claim, what a plain port of them reached, and what is asked of the improved ones."""

from dataclasses import dataclass

from benchmarks.tutorials.row_statistics import Asked, in_tenths, median, more_than_faithful, part_of_the_loop


@dataclass(frozen=True)
class Quantity:
    """
    A line of a tutorial's table.

    :param label: in words
    :param column: in the rows
    :param digits: behind the point
    """

    label: str
    column: str
    digits: int = 1


@dataclass(frozen=True)
class Tutorial:
    """
    One of them.

    :param name: of its configurations, its page and its pictures
    :param title: in tables and pictures
    :param env_id: the environment
    :param claim: what the tutorial says of itself
    :param port: what a port of its code, line by line, reached with ten seeds
    :param asked: of the improved variant
    :param goal: a return in training
    :param window: of how many episodes in a row the mean must reach the goal
    :param in_episodes: whether training is as long as so many episodes, and not as so many steps
    :param eval_freq: environment steps between the evaluations that choose the best checkpoint; None: there are none, as they
        take time
    :param timed: whether it is run with nothing beside it, and the plain loop after the improved variant
    :param of_values: whether losses are logged, and predicted values compared with realised returns
    :param of_trials: whether what counts is the trials that are completed, the first hundred at least
    :param filmed: whether there is a video, and a comparison with random actions
    """

    name: str
    title: str
    env_id: str
    reported: str
    port_result: str
    asked: tuple[Asked, ...]
    threshold: float = 195.0
    window: int = 10
    in_episodes: bool = False
    eval_freq: int | None = None
    timed: bool = False
    measures_values: bool = False
    counts_trials: bool = False
    records_video: bool = False

    @property
    def threshold_label(self) -> str:
        """What the column ``first_at_goal`` holds."""
        if self.counts_trials:
            return "first trial that is completed"
        return f"first episode at which the last {self.window} have a mean of {self.threshold:g}"

    @property
    def quantities(self) -> list[Quantity]:
        """What its table shows."""
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
                Quantity("seconds of training, compilation included", "train_s"),
                Quantity("seconds of training, compiled before", "train_again_s"),
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
        asked=(
            Asked("median greedy return of the last model at least 190", median("greedy_last", at_least=190)),
            Asked("greedy return above 150 in 8 of 10 seeds", in_tenths(["greedy_last"], 8, lambda value: value > 150)),
        ),
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
        asked=(
            Asked(
                "median greedy return of the best checkpoint above the faithful: 95 % interval of the difference above 0",
                more_than_faithful("greedy_best"),
            ),
            Asked("goal: median greedy return of the best checkpoint at least 475", median("greedy_best", at_least=475)),
        ),
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
        asked=(
            Asked(
                "greedy return above -200, of the last model or the best checkpoint, in 9 of 10 seeds",
                in_tenths(["greedy_last", "greedy_best"], 9, lambda value: value > -200),
            ),
            Asked("median greedy return of the last model at least -140", median("greedy_last", at_least=-140)),
        ),
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
        asked=(
            Asked("median greedy return of the last model at least 195", median("greedy_last", at_least=195)),
            Asked("at most half of the plain loop's time, compilation included", part_of_the_loop(1 / 2)),
            Asked("goal: at most a third of it", part_of_the_loop(1 / 3)),
        ),
        timed=True,
    ),
    Tutorial(
        "exponential_decay",
        "Epsilon decays exponentially",
        "CartPole-v0",
        reported="195",
        port_result="193 (145 to 199) in the last 100 episodes of training; mean of 10 at 195 after 801 episodes (621 to 902)",
        asked=(
            Asked(
                "mean of 10 returns of training at 195 within 250 episodes, median", median("first_at_threshold", at_most=250)
            ),
            Asked(
                "greedy return of the last model at least 195 in 10 of 10 seeds",
                in_tenths(["greedy_last"], 10, lambda value: value >= 195),
            ),
        ),
        in_episodes=True,
        eval_freq=2_500,
    ),
]
BY_NAME = {tutorial.name: tutorial for tutorial in TUTORIALS}
