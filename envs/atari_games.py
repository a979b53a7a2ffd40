"""ALE's vector environment with lives that end a return and not the game, and with a state that can be saved."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from ale_py import Action
from ale_py.vector_env import AtariVectorEnv
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose, parameters_of
from sb3_dqn_ext.errors import ArgumentError, CheckpointError

Array = npt.NDArray[Any]
Infos = dict[str, Any]
FIXED_ARGUMENTS = {
    "autoreset_mode": "a game is reset in the step that ends it",
    "batch_size": "each step is a step of all games",
    "life_loss_info": "episodic_life=True ends an episode with each life, and the game continues",
}
"""arguments of ALE that have one value here -> the reason"""
LOWEST = {
    **dict.fromkeys(("img_height", "img_width", "stack_num", "frameskip", "reseed_every"), 1),  # 0: ALE waits forever
    **dict.fromkeys(("num_threads", "noop_max", "max_num_frames_per_episode"), 0),
}
"""arguments that are whole numbers -> the lowest one"""
SWITCHES = (
    *("episodic_life", "reward_clipping", "fire_after_life"),
    *("grayscale", "maxpool", "use_fire_reset", "full_action_space", "continuous"),
)
"""arguments that are True or False"""


class AtariGamesVectorEnv(AtariVectorEnv):
    """
    ALE's vector environment of an Atari game: threads step ``num_envs`` games. Observations are stacks of gray images.

    It takes the arguments of ``ale_py.vector_env.AtariVectorEnv``, and differs from it in five points:

    - ``episodic_life=True`` ends an episode with each lost life, as SB3's ``EpisodicLifeEnv`` does, and the game continues.
      The first observation of the next episode is the last one of this episode. In ALE's own class a new game begins.
    - ``fire_after_life=True`` presses FIRE after each lost life, in place of the agent's action, as ALE does when a game
      begins. In some games, such as Breakout, nothing happens before.
    - Infos contain the game's own ``raw_reward`` and ``game_over``, which the episode statistics of ``FastVecEnv`` count:
      scores of whole games, whatever ``reward_clipping`` and ``episodic_life`` are.
    - ``get_state`` and ``set_state`` save and restore the games by their seeds and their actions since.
    - A game that ends is reset in the same step.

    :param game: the name of the game in snake case, such as ``"space_invaders"``
    :param num_envs: the number of games
    :param episodic_life: whether an episode ends with a life (default: with the game)
    :param reward_clipping: whether rewards are clipped to -1, 0 and 1 (default)
    :param fire_after_life: whether FIRE follows the loss of a life (default: False); without effect in games that have no FIRE
    :param render_mode: ``"rgb_array"`` or None (default)
    :param reseed_every: the number of steps after which a game gets a new seed at its end. A saved state contains the actions
        since the last seed. A new seed takes as long as some hundred steps, because ALE then loads the game again
    :param kwargs: further arguments of ALE, such as ``num_threads`` (0: all cores), ``repeat_action_probability``,
        ``noop_max``, ``use_fire_reset``, ``img_height``, ``img_width``, ``stack_num`` and ``frameskip``
    :raises ArgumentError: if an argument does not exist, or has one value only
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  # ALE writes into it

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        episodic_life: bool = False,
        reward_clipping: bool = True,
        fire_after_life: bool = False,
        render_mode: str | None = None,
        reseed_every: int = 20_000,
        **kwargs: Any,
    ) -> None:
        check_keys("env_kwargs", kwargs, parameters_of(AtariGamesVectorEnv))
        for name in kwargs.keys() & FIXED_ARGUMENTS:
            raise ArgumentError(f"{name}={kwargs[name]!r} cannot be set: {FIXED_ARGUMENTS[name]}.")
        switches = {"episodic_life": episodic_life, "reward_clipping": reward_clipping, "fire_after_life": fire_after_life}
        check_values({**kwargs, **switches, "reseed_every": reseed_every})
        super().__init__(game, num_envs, reward_clipping=False, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
        self.render_mode = choose("render_mode", str(render_mode), {"None": None, "rgb_array": "rgb_array"})
        self.episodic_life, self.reward_clipping, self.reseed_every = episodic_life, reward_clipping, reseed_every
        self._actions: list[Array] = []  # of all games, since the oldest seed
        self._seeds = np.zeros(num_envs, np.int64)
        self._seeded_at = np.zeros(num_envs, np.int64)  # (num_envs,) the index of the first action since the seed
        self._lives = np.zeros(num_envs, np.int32)
        self._has_lost = np.zeros(num_envs, np.bool_)  # (num_envs,) whether the latest step has lost a life and not the game
        buttons = list(self.ale.get_action_set())
        self._fire = buttons.index(Action.FIRE) if fire_after_life and Action.FIRE in buttons and not self.continuous else None
        self._observations: Array | None = None  # the latest ones

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Array, Infos]:  # type: ignore[override]
        """
        Begin new games.

        :param seed: the seed of the first game; game i has ``seed + i``. None (default): seeds are drawn
        :param options: ``{"reset_mask": mask}``, (num_envs,) bool, resets some of the games only
        :return: observations (num_envs, stack_num, height, width) uint8, and infos
        """
        envs = np.ones(self.num_envs, np.bool_) if options is None or "reset_mask" not in options else options["reset_mask"]
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)
        return self._begin_games(envs, self._draw_seeds(envs) if seed is None else seed + np.arange(np.count_nonzero(envs)))

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Infos]:
        """Step all games, see ``gymnasium.vector.VectorEnv.step``."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Array) -> None:
        """
        Start a step of all games, which threads make while Python continues.

        :param actions: (num_envs,) the actions
        """
        actions = np.asarray(actions)
        if self._fire is not None and np.count_nonzero(self._has_lost):
            actions = np.where(self._has_lost, self._fire, actions)
        self.send(actions)
        self._actions.append(actions.astype(np.float32 if self.continuous else np.uint8))

    def step_wait(self) -> tuple[Array, Array, Array, Array, Infos]:
        """
        Finish the step.

        :return: observations (num_envs, stack_num, height, width) uint8, rewards (num_envs,), terminated (num_envs,),
            truncated (num_envs,), infos
        """
        observations, raw_rewards, terminated, truncated, infos = self.recv()
        game_over, finals = terminated | truncated, infos.pop("final_obs", None)
        reseeded = game_over & (len(self._actions) - self._seeded_at >= self.reseed_every)
        if np.count_nonzero(reseeded):
            observations, infos = self._begin_games(reseeded, self._draw_seeds(reseeded))
        lives = infos["lives"]
        # Some games stay at 0 lives for a few frames before they end.
        self._has_lost = (lives > 0) & (lives < self._lives) & ~game_over
        self._lives, self._observations = lives, observations
        lost = self._has_lost & self.episodic_life
        infos |= {"raw_reward": raw_rewards, "game_over": game_over}
        if np.count_nonzero(game_over | lost):
            infos |= final_entries(observations, finals, infos, game_over, lost)
        rewards = np.sign(raw_rewards) if self.reward_clipping else raw_rewards
        return observations, rewards, terminated | lost, truncated, infos

    def render(self) -> tuple[Array, ...] | None:
        """Return the latest image of each game, as the agent gets it, four times as large: (height, width, 3) uint8."""
        if self.render_mode is None or self._observations is None:
            return None
        latest = self._observations[:, -1].repeat(4, axis=1).repeat(4, axis=2)
        return tuple(np.repeat(latest[..., None], 3, axis=3) if self.grayscale else latest)

    def get_state(self) -> Infos:
        """Return the state of all games between two steps as plain data: their seeds, the actions since, and checksums."""
        actions = np.array(self._actions, np.float32 if self.continuous else np.uint8)
        checksums = None if self._observations is None else self._checksums()
        replayed = {"seeds": self._seeds, "seeded_at": self._seeded_at, "actions": actions}
        return {**replayed, "has_lost": self._has_lost, "checksums": checksums}

    def set_state(self, state: Infos) -> None:
        """
        Restore a state by playing the games from their seeds again.

        :param state: the state from :meth:`get_state` of an equal environment
        :raises CheckpointError: if the games reach other images, as with another version of ``ale_py``
        """
        if state["checksums"] is None:
            return
        seeded_at, actions = state["seeded_at"], state["actions"]
        observations, infos = self.ale_reset(np.ones(self.num_envs, np.bool_), state["seeds"])
        for i, action in enumerate(actions, start=1):
            self.send(action if self.continuous else action.astype(np.int64))
            observations, *_, infos = self.recv()
            if np.count_nonzero(begins := seeded_at == i):
                observations, infos = self.ale_reset(begins, state["seeds"][begins])
        self._seeds, self._seeded_at, self._actions = state["seeds"].copy(), seeded_at.copy(), list(actions)
        self._lives, self._has_lost, self._observations = infos["lives"], state["has_lost"], observations
        if self._checksums() != state["checksums"]:
            raise CheckpointError(
                f"The games of {self.spec.id if self.spec else 'ALE'} cannot be restored: played again from their seeds, they "
                "show other images. Are ale_py and the arguments of the environment those of the checkpoint?"
            )

    def ale_reset(self, envs: Array, seeds: Array) -> tuple[Array, Infos]:
        """
        Begin new games with given seeds, without a record of them.

        :param envs: (num_envs,) bool, the games to begin
        :param seeds: the seed of each of them
        :return: observations and infos of all games
        """
        result: tuple[Array, Infos] = self.ale.reset(np.flatnonzero(envs), seeds)
        return result

    def _begin_games(self, envs: Array, seeds: Array) -> tuple[Array, Infos]:
        observations, infos = self.ale_reset(envs, seeds)
        self._seeds[envs], self._seeded_at[envs] = seeds, len(self._actions)
        oldest = self._seeded_at.min()
        del self._actions[:oldest]
        self._seeded_at -= oldest
        self._lives, self._has_lost, self._observations = infos["lives"], self._has_lost & ~envs, observations
        return observations, infos

    def _draw_seeds(self, envs: Array) -> Array:
        return self.np_random.integers(2**31 - 1, size=np.count_nonzero(envs))

    def _checksums(self) -> list[int]:
        assert self._observations is not None
        return [zlib.crc32(observation.tobytes()) for observation in self._observations]


def check_values(arguments: Infos) -> None:
    """
    Check the values of arguments, of which ALE checks some only.

    :param arguments: the arguments of the environment
    :raises ArgumentError: if one has another type, or is too small or too large
    """
    for name, value in arguments.items():
        if name in LOWEST:
            check_number(name, value, LOWEST[name], integer=True)
        elif name in SWITCHES:
            check_type(name, value, bool, "True or False")
        elif name == "repeat_action_probability":
            check_number(name, value, 0, 1)


def final_entries(observations: Array, finals: Array | None, infos: Infos, game_over: Array, lost: Array) -> Infos:
    """
    Return the infos of episodes that ended in a step, in gymnasium's format.

    :param observations: (num_envs, ...) the observations after the step; first ones of new games
    :param finals: (num_envs, ...) the last observations of games that ended; None if no game has ended
    :param infos: (num_envs,) for each key, the infos of the step
    :param game_over: (num_envs,) whether a game has ended
    :param lost: (num_envs,) whether only a life was lost
    :return: ``final_obs`` and ``final_info`` with their masks
    """
    ended = game_over | lost
    by_env = (slice(None), *[None] * (observations.ndim - 1))
    final_obs = observations if finals is None else np.where(lost[by_env], observations, finals)
    # a game that ended has only these two entries: ALE returns the lives and frames of the new game
    of_both = {"raw_reward", "game_over"}
    masks = {f"_{key}": ended if key in of_both else lost for key in infos}
    return {"final_obs": final_obs, "_final_obs": ended, "final_info": {**infos, **masks}, "_final_info": ended}
