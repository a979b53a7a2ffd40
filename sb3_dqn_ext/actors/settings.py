"""The argument ``actors`` of DQNExt, and the arguments with which it combines."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sb3_dqn_ext._command_line import check_extra
from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose, parameters_of
from sb3_dqn_ext.actors.env_recipe import EnvRecipe, make_recipe
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["ENGINES", "ActorSettings", "check_actor_combinations", "parse_actors"]

ENGINES = ("processes", "ray")
ENGINE_SYNONYMS = {"process": "processes", "multiprocessing": "processes", "local": "processes", "cluster": "ray"}
RAY_KWARGS = ("address", "num_cpus", "runtime_env")
MAX_BLOCK = 100_000
REPLACED_METHODS = {"predict": "policy", "_sample_action": "policy", "_store_transition": "replay buffer"}
"""The methods of DQNExt that are not called with actors, and where a user can override something instead."""


@dataclass(frozen=True)
class ActorSettings:
    """
    The argument ``actors`` of DQNExt.

    :param n_actors: the number of actors
    :param engine: ``"processes"``: processes on this machine; ``"ray"``: actors on a Ray cluster
    :param envs_per_actor: m, the number of environments of each actor
    :param block_size: the transitions in a block; rounded down to a multiple of m
    :param queue_blocks: the blocks of an actor that may wait for the learner; an actor with so many of them waits
    :param weights_interval: the gradient steps between two broadcasts of the weights
    :param samples_per_insert: the transitions that the learner samples for each one that it stores; None: ``train_freq`` and
        ``gradient_steps`` determine it, as for m environments in this process
    :param max_restarts: the number of times in a row that an actor is started again which ends without having sent a block
    :param engine_kwargs: arguments of the engine: ``address``, ``num_cpus`` and ``runtime_env`` of ``"ray"``
    :raises ArgumentError: if an argument has a wrong value
    :raises UnsupportedError: if the engine is not installed
    """

    n_actors: int
    engine: str = "processes"
    envs_per_actor: int = 1
    block_size: int = 200
    queue_blocks: int = 2
    weights_interval: int = 100
    samples_per_insert: float | None = None
    max_restarts: int = 3
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choose("actors['engine']", self.engine, dict.fromkeys(ENGINES), ENGINE_SYNONYMS)
        for name in ("n_actors", "envs_per_actor", "queue_blocks", "weights_interval"):
            check_number(f"actors[{name!r}]", getattr(self, name), low=1, integer=True)
        check_number("actors['max_restarts']", self.max_restarts, low=0, integer=True)
        check_number("actors['block_size']", self.block_size, self.envs_per_actor, MAX_BLOCK, integer=True)
        if self.samples_per_insert is not None:
            check_number("actors['samples_per_insert']", self.samples_per_insert, low=1e-6)
        check_type("actors['engine_kwargs']", self.engine_kwargs, Mapping, "a mapping of arguments")
        check_keys("actors['engine_kwargs']", self.engine_kwargs, RAY_KWARGS if self.engine == "ray" else ())
        if self.engine == "ray":
            check_extra("actors={'engine': 'ray'}", "ray")

    @property
    def rows(self) -> int:
        """The steps of an actor's environments in a block."""
        return self.block_size // self.envs_per_actor


def parse_actors(actors: Any) -> ActorSettings:
    """
    Check the argument ``actors`` on its own.

    :param actors: a mapping of arguments, see :class:`ActorSettings`
    :return: the arguments
    :raises ArgumentError: if there is no such argument, ``n_actors`` is missing, or an argument has a wrong value
    """
    check_type("actors", actors, Mapping, "None, or a mapping of arguments such as {'engine': 'processes', 'n_actors': 2}")
    check_keys("actors", actors, parameters_of(ActorSettings))
    if "n_actors" not in actors:
        raise ArgumentError("actors misses: n_actors.")
    return ActorSettings(**actors)


def check_actor_combinations(model: Any, algorithm: type, given: Collection[str] = ()) -> EnvRecipe:
    """
    Check that a model can be trained by actors.

    :param model: a DQNExt with ``actors``
    :param algorithm: the class DQNExt
    :param given: the names of the arguments that the user gave
    :return: the recipe of the environments of the actors
    :raises ArgumentError: if another argument does not combine with actors; the message contains the reason
    """
    recipe, ratio = make_recipe(model.env), parse_actors(model.actors).samples_per_insert
    buffer = model.replay_buffer
    if not isinstance(buffer, DQNReplayBuffer):
        raise ArgumentError(f"actors need DQNReplayBuffer, not replay_buffer_class={type(buffer).__name__}.")
    whole_episodes = "needs the steps of each episode in one column of the replay buffer, and actors send blocks of steps"
    conflicts = {
        f"replay_buffer_kwargs['td_lambda']={buffer.td_lambda!r} {whole_episodes}": buffer.td_lambda is not None,
        f"replay_buffer_kwargs['monte_carlo']={buffer.monte_carlo!r} {whole_episodes}": buffer.monte_carlo > 0,
        f"replay_buffer_kwargs['keep_episodes']={buffer.keep_episodes!r} {whole_episodes}": buffer.keep_episodes is not None,
        f"n_epochs={model.n_epochs!r} replays all stored transitions at each training, and no ratio of samples to inserts "
        "would hold": model.n_epochs is not None,
        "step_while_learning=True has no effect: actors step while the networks are trained": model.step_while_learning,
        "exploration_kwargs['unit']='actions' counts the actions of one environment, which differ between actors": (
            model.exploration_kwargs.get("unit") == "actions"
        ),
    }
    for reason, is_conflict in conflicts.items():
        if is_conflict:
            raise ArgumentError(f"{reason}. Leave it out, or leave out actors.")
    for name, place in REPLACED_METHODS.items():
        if getattr(type(model), name) is not getattr(algorithm, name) or name in vars(model):
            raise UnsupportedError(
                f"actors choose actions and make transitions without {name}(), which {type(model).__name__} overrides: "
                f"override a method of the {place}, or leave out actors."
            )
    if ratio is not None and "gradient_steps" in given:
        warnings.warn(f"gradient_steps has no effect beside actors['samples_per_insert']={ratio!r}.", stacklevel=4)
    return recipe
