"""The charts of TensorBoard's Custom Scalars: the logged scalars that users of DQN compare."""

import re
from collections.abc import Iterable

__all__ = ["CHARTS", "chart_layout"]

Layout = dict[str, dict[str, list[str]]]
"""for each group and title of a chart, regular expressions of its tags"""

# Each expression matches whole tags.
CHARTS: Layout = {
    "learning": {
        "mean return": ["rollout/ep_rew_mean", "eval/mean_reward"],
        "episode length": ["rollout/ep_len_mean", "eval/mean_ep_length"],
        "success rate": ["rollout/success_rate", "eval/success_rate"],
    },
    "values": {
        "predicted and realised return": ["calibration/predicted", "calibration/realised"],
        "overestimation": ["calibration/bias"],
        "overestimation from the lowest to the highest returns": [r"calibration/error_\d+_of_\d+"],
        "slope and correlation": ["calibration/slope", "calibration/correlation"],
        "Q-values": ["values/mean", "values/min", "values/max"],
        "differences between actions": ["values/spread", "values/action_gap"],
        "policy churn": ["values/churn"],
        "distance of the target network's outputs": ["values/target_outputs"],
        "distance of the target network's parameters": ["values/target_parameters"],
    },
    "errors": {
        "loss": ["train/loss"],
        "size of TD errors": ["errors/abs_mean", "errors/abs_p95"],
        "largest TD error": ["errors/abs_max"],
        "TD errors, mean and standard deviation": ["errors/mean", "errors/std"],
        "terminal and bootstrapped": ["errors/terminal", "errors/bootstrapped"],
        "from the newest to the oldest transitions": [r"errors/age_\d+_of_\d+"],
        "prioritized: effective share and beta": ["errors/effective_share", "errors/beta"],
    },
    "exploration": {
        "exploration rate": ["rollout/exploration_rate", "exploration/exploratory"],
        "temperature": ["rollout/temperature"],
        "epsilon of each environment": [r"exploration/epsilon_\d+"],
        "share of each action": [r"exploration/action_\d+"],
    },
    "memory": {
        "age of drawn transitions": ["replay/age_mean", "replay/age_median"],
        "share of terminal transitions": ["replay/terminal_stored", "replay/terminal_sampled"],
        "fill": ["replay/fill"],
        "reward": ["replay/reward_mean"],
    },
    "network": {
        "gradient norm": ["network/gradient_norm", "network/gradient_norm_max"],
        "share of clipped updates": ["network/clipped"],
        "weight norm": ["network/weight_norm"],
        "share of dormant units": ["network/dormant"],
        "feature rank": ["network/feature_rank"],
    },
    "speed": {
        "environment steps per second": ["time/fps"],
    },
}


def chart_layout(tags: Iterable[str]) -> Layout:
    """
    Choose the charts of a run.

    :param tags: the tags that the run has logged
    :return: the charts with at least one of these tags. Each has all its tags, so that charts of several runs are the same
    """
    tags = list(tags)
    charts_with_data = {
        group: {title: patterns for title, patterns in charts.items() if _matches_any(patterns, tags)}
        for group, charts in CHARTS.items()
    }
    return {
        group: {title: _anchor_ends(patterns) for title, patterns in charts.items()}
        for group, charts in charts_with_data.items()
        if charts
    }


def _matches_any(patterns: Iterable[str], tags: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, tag) for tag in tags for pattern in patterns)


def _anchor_ends(patterns: Iterable[str]) -> list[str]:
    """Let expressions match whole tags: TensorBoard accepts a match of the beginning."""
    return [f"{pattern}$" for pattern in patterns]
