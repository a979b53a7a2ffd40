"""
Compare the presets of five tutorials with ports of the tutorials' own loops.

A port is written from its tutorial's text alone. Its inputs are the steps of the environment without wrappers and the numbers
of the steps that the preset drew. It has its own replay buffer.
"""

import importlib
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_dqn_ext import DQNExt, presets
from tests.internals import exploration_of, n_updates_of, set_exploration
from tests.processes import output, python

Array = npt.NDArray[Any]


# -- recorders of a preset -------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A step of the bare environment."""

    state: Array
    action: int
    reward: float
    next_state: Array
    done: bool
    """whether the episode ended, for any reason, as in the gym of the tutorials"""
    first: bool
    """whether the step is the first after a reset"""


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that records the steps of an environment."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.steps: list[Step] = []
        self._first_state: Array | None = None
        self._state: Array = np.empty(0)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._state, info = self.env.reset(**kwargs)
        self._first_state = self._state
        return self._state, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = self.env.step(action)
        first = self._state is self._first_state
        self.steps.append(Step(self._state.copy(), int(action), float(reward), state.copy(), terminated or truncated, first))
        self._state = state
        return state, reward, terminated, truncated, info


@dataclass
class Training:
    """The record of one call of ``train``."""

    n_steps: int
    """the number of steps that each environment has stored so far"""
    target: th.Tensor
    """the weights of the target network"""
    batches: list[Array] = field(default_factory=list)
    """the indices of each batch that was drawn"""
    fitted: list[Array] = field(default_factory=list)
    """the indices of the batch, or part of a batch, of each update"""
    weights: list[th.Tensor] = field(default_factory=list)
    """the weights of the online network after each update"""


def weights(*nets: nn.Module) -> th.Tensor:
    """Return all weights in one vector."""
    return nn.utils.parameters_to_vector([parameter for net in nets for parameter in net.parameters()]).detach()


class RecordedExploration:
    """An exploration that records how it chose the last actions."""

    def __init__(self, exploration: Any) -> None:
        self.exploration = exploration
        self.choice: tuple[float, int] | None = None
        """epsilon, and the number of random actions"""

    def __call__(self, context: Any) -> Any:
        n_random = itertools.count()

        def random(env: int) -> Any:
            next(n_random)
            return context.random_action(env)

        actions = self.exploration(context._replace(random_action=random))
        self.choice = context.rate, next(n_random)
        return actions

    def log_entry(self, rate: float, n_envs: int) -> Any:
        return self.exploration.log_entry(rate, n_envs)


class ChoiceRecorder(BaseCallback):
    """
    A callback that records how each action was chosen, and stops after a number of steps.

    :param exploration: the exploration that chooses the actions
    :param n_steps: the number of steps of each environment
    """

    def __init__(self, exploration: RecordedExploration, n_steps: float) -> None:
        super().__init__()
        self.exploration = exploration
        self.n_steps = n_steps
        self.choices: list[tuple[float, int]] = []

    def _on_step(self) -> bool:
        # in a warm-up, actions are random, and the exploration is not called
        self.choices.append(self.exploration.choice or (1.0, self.training_env.num_envs))
        self.exploration.choice = None
        return self.n_calls < self.n_steps


# -- a preset, built as the zoo does ---------------------------------------------------------------------------------------


def preset(name: str) -> tuple[str, dict[str, Any]]:
    """Return the environment and the hyperparameters in the file of a preset."""
    ((env_id, hyperparameters),) = importlib.import_module(f"sb3_dqn_ext.presets.{name}").hyperparams.items()
    return env_id, hyperparameters


def class_and_kwargs(entry: Any) -> tuple[Any, dict[str, Any]]:
    """Return the class and the arguments of ``package.Name``, or of a mapping of it to arguments."""
    ((path, kwargs),) = entry.items() if isinstance(entry, dict) else [(entry, {})]
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name), kwargs


class Run:
    """
    A preset's model, built as the zoo builds it, with environments that record their steps.

    :param name: the name of the preset
    :param make: a function that makes the environment without wrappers
    :param overrides: hyperparameters to change
    """

    def __init__(self, name: str, make: Callable[[], gym.Env[Any, Any]], **overrides: Any) -> None:
        self.env_id, hyperparameters = preset(name)
        hyperparameters |= overrides
        self.n_timesteps = int(hyperparameters.pop("n_timesteps"))
        self.n_envs = hyperparameters.pop("n_envs", 1)
        self._callbacks = hyperparameters.pop("callback", [])
        wrappers = hyperparameters.pop("env_wrapper", [])
        self.recorders: list[Recorder] = []

        def record() -> gym.Env[Any, Any]:
            self.recorders.append(Recorder(make()))
            return self.recorders[-1]

        def wrap(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
            for wrapper, kwargs in map(class_and_kwargs, wrappers):
                env = wrapper(env, **kwargs)
            return env

        env = make_vec_env(record, self.n_envs, seed=0, wrapper_class=wrap)
        self.model = DQNExt(env=env, seed=0, device="cpu", **hyperparameters)
        self.initial = [parameter.detach().clone() for parameter in self.model.q_net.parameters()]
        self.buffer: Any = self.model.replay_buffer
        self.trainings: list[Training] = []
        self.choices: list[tuple[float, int]] = []
        """epsilon (1 in the warm-up) and the number of random actions of each step"""
        self.was_stopped = False
        """whether a callback stopped the run, after a step that is stored and not learned from"""

    @property
    def n_stored(self) -> int:
        """The number of steps that each environment stored."""
        return self.model._n_calls

    def train(self, n_steps: float = math.inf, trains: bool = True, stops: bool = False) -> None:
        """
        Train the model.

        :param n_steps: the number of steps of each environment; schedules have the length of the preset
        :param trains: whether to make updates, or only to record when they are due
        :param stops: whether the callbacks of the preset can stop the run
        """
        self._record_training(trains)
        exploration = RecordedExploration(exploration_of(self.model))
        set_exploration(self.model, exploration)
        recorder = ChoiceRecorder(exploration, n_steps)
        callbacks = [callback(**kwargs) for callback, kwargs in map(class_and_kwargs, self._callbacks if stops else [])]
        self.model.learn(self.n_timesteps, callback=[*callbacks, recorder])
        self.choices = recorder.choices
        self.was_stopped = self.model.num_timesteps < self.n_timesteps
        del self.model.train, self.model.updater.gradient_step, self.buffer.sample_batch, self.buffer.epoch

    def _record_training(self, trains: bool) -> None:
        model, buffer = self.model, self.buffer
        train, gradient_step, sample_batch, epoch = model.train, model.updater.gradient_step, buffer.sample_batch, buffer.epoch

        def recorded_train(gradient_steps: int, batch_size: int = 100) -> None:
            self.trainings.append(Training(self.n_stored, weights(model.q_net_target)))
            if trains:
                train(gradient_steps, batch_size)

        def recorded_gradient_step(model_: Any, optimizer: Any, batch: Any, *args: Any) -> th.Tensor:
            loss = gradient_step(model_, optimizer, batch, *args)
            self.trainings[-1].fitted.append(batch.indices)
            self.trainings[-1].weights.append(weights(model.q_net))
            return loss

        def recorded_sample_batch(*args: Any) -> Any:
            batch = sample_batch(*args)
            self.trainings[-1].batches.append(batch.indices)
            return batch

        def recorded_epoch(*args: Any) -> Iterator[Any]:
            for batch, n_batches in epoch(*args):
                self.trainings[-1].batches.append(batch.indices)
                yield batch, n_batches

        model.train = recorded_train  # type: ignore[method-assign]
        model.updater.gradient_step = recorded_gradient_step  # type: ignore[method-assign, assignment]
        buffer.sample_batch, buffer.epoch = recorded_sample_batch, recorded_epoch


# -- the ports -------------------------------------------------------------------------------------------------------------


def layers(*sizes: int) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    pairs = [(nn.Linear(n_in, n_out), nn.ReLU()) for n_in, n_out in itertools.pairwise(sizes)]
    return nn.Sequential(*list(itertools.chain(*pairs))[:-1])


def set_weights(net: nn.Module, values: Sequence[th.Tensor]) -> None:
    with th.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            assert parameter.shape == value.shape
            parameter.copy_(value)


def tensor(rows: Sequence[Any], dtype: th.dtype = th.float32) -> th.Tensor:
    return th.tensor(np.array(rows), dtype=dtype)


def fit(net: nn.Module, optimizer: th.optim.Optimizer, inputs: th.Tensor, targets: th.Tensor) -> None:
    """Make the update of Keras with one batch and the loss "mse", the mean over the batch and the outputs."""
    optimizer.zero_grad()
    ((net(inputs) - targets) ** 2).mean().backward()
    optimizer.step()


class Entry(NamedTuple):
    """A step in the replay buffer of a tutorial."""

    step: int
    """the number of the step, from 0; the tutorials do not need it"""
    state: Array
    action: int
    reward: float
    """the reward, or another number that the tutorial stores in its place"""
    next_state: Array
    done: bool


class Port:
    """The loop of a tutorial, with the comparison to the preset of the same name."""

    name: ClassVar[str]
    observation_size: ClassVar[int] = 4
    n_actions: ClassVar[int] = 2
    reward: ClassVar[float] = 1.0
    """the reward of each step of its environment"""
    time_limit: ClassVar[int] = 20
    """a short time limit, so that a few steps contain truncated episodes"""
    atol: ClassVar[float] = 1e-6
    gamma: ClassVar[float]
    capacity: ClassVar[int]
    """the largest number of steps in the replay buffer"""

    memory: Any
    """a sequence of entries"""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trainings = deque(run.trainings)

    # parts of each tutorial

    def epsilons(self) -> Iterator[float]:
        """Return the epsilon of each action, 1 in the warm-up."""
        raise NotImplementedError

    def remember(self, i: int, step: Step) -> None:
        raise NotImplementedError

    def learn(self, i: int) -> None:
        """:param i: the number of steps before the one that was stored last"""
        raise NotImplementedError

    def target_parts(self, entry: Entry) -> tuple[float, float]:
        """Return the number in the target, and the factor of the next state's value."""
        return entry.reward, 0.0 if entry.done else self.gamma

    # parts of all tutorials

    def steps(self) -> list[Any]:
        """Return the steps that are stored, in their order."""
        (recorder,) = self.run.recorders
        return recorder.steps[: self.run.n_stored]

    def entries(self) -> list[Entry]:
        """Return the content of the replay buffer."""
        return list(self.memory)

    def index(self, entry: Entry) -> int:
        """Return the index of an entry in the replay buffer of the preset."""
        return entry.step % int(self.run.buffer.buffer_size)

    def play(self, learn: bool = True) -> None:
        steps = list(self.steps())
        for i, step in enumerate(steps):
            self.remember(i, step)
            if learn and i < len(steps) - self.run.was_stopped:
                self.learn(i)
        assert not (learn and self.trainings), "the preset trained more often"

    def training(self, i: int) -> Training:
        """Return the next training of the preset, which has to be after the same step."""
        training = self.trainings.popleft()
        assert training.n_steps == i + 1
        return training

    def drawn_entries(self, indices: Array) -> list[Entry]:
        """Return the entries that the preset drew, each at most as often as it is in the port's memory."""
        remembered = Counter(self.index(entry) for entry in self.memory)
        assert Counter(indices.tolist()) <= remembered
        by_index = {self.index(entry): entry for entry in self.memory}
        return [by_index[index] for index in indices.tolist()]

    def compare(self, ours: th.Tensor, theirs: th.Tensor) -> None:
        """Check that two vectors of weights are equal up to rounding."""
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).abs().max()) <= self.atol


class MonteCarloMultiHead(Port):
    name = "monte_carlo_multi_head"
    time_limit = 10
    gamma = 0.9
    capacity = 10 * 200

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        base = layers(4, 10, 10)
        base.append(nn.ReLU())
        heads = [layers(10, 10, 1) for _ in range(2)]
        set_weights(nn.ModuleList([base, *heads]), run.initial)
        self.models = [nn.Sequential(base, head) for head in heads]
        self.optimizers = [th.optim.Adam(model.parameters(), lr=0.001, eps=1e-7) for model in self.models]
        self.games: deque[list[Entry]] = deque(maxlen=10)
        self.game: list[tuple[int, Step]] = []
        self.n_games = 0

    def epsilons(self) -> Iterator[float]:
        return itertools.repeat(0.1)

    def remember(self, i: int, step: Step) -> None:
        self.game.append((i, step))
        if step.done:
            self.games.append(self.discounted_game())
            self.game = []
            self.n_games += 1
        self.memory = [entry for game in self.games for entry in game]

    def discounted_game(self) -> list[Entry]:
        """Return the last game as (S, a, v), from its end to its beginning."""
        entries, v = [], 0.0
        for i, step in reversed(self.game):
            if not step.done:
                v = 1 + self.gamma * v
            entries.append(Entry(i, step.state, step.action, v, step.next_state, step.done))
        return entries

    def target_parts(self, entry: Entry) -> tuple[float, float]:
        return entry.reward, 0.0

    def learn(self, i: int) -> None:
        if self.game or self.n_games % 10:
            return
        training = self.training(i)
        batches, after = deque(training.batches), deque(training.weights)
        for action, (model, optimizer) in enumerate(zip(self.models, self.optimizers, strict=True)):
            of_action = [entry for entry in self.memory if entry.action == action]
            for _ in range(10):
                left = Counter(entry.step for entry in of_action)
                for start in range(0, len(of_action), 32):
                    batch = self.drawn_entries(batches.popleft())
                    assert len(batch) == min(32, len(of_action) - start)
                    left.subtract(entry.step for entry in batch)
                    states, values = tensor([entry.state for entry in batch]), tensor([[entry.reward] for entry in batch])
                    fit(model, optimizer, states, values)
                    self.compare(weights(self.models[0], self.models[1][1]), after.popleft())
                assert not any(left.values())
        assert not batches
        assert not after


class TerminalPenalty(Port):
    name = "terminal_penalty"
    gamma = 0.95
    capacity = 100_000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.player = layers(4, 5, 5, 2)
        set_weights(self.player, run.initial)
        self.optimizer = th.optim.Adam(self.player.parameters(), lr=0.001, eps=1e-7)
        self.memory = deque(maxlen=self.capacity)

    def epsilons(self) -> Iterator[float]:
        for i in range(20_000):
            yield max(0.05, 0.9 - (0.9 - 0.05) * i / 20_000)

    def remember(self, i: int, step: Step) -> None:
        reward = step.reward
        if step.done:
            reward = -50.0
            self.memory.append(Entry(i, step.state, step.action, reward, step.next_state, step.done))
        self.memory.append(Entry(i, step.state, step.action, reward, step.next_state, step.done))

    def learn(self, i: int) -> None:
        if i < 32:
            return
        training = self.training(i)
        (indices,), (after,) = training.batches, training.weights
        replays = self.drawn_entries(indices)
        assert len(replays) == 32
        states = tensor([replay.state for replay in replays])
        with th.no_grad():
            next_values = self.player(tensor([replay.next_state for replay in replays]))
            values = self.player(states).clone()
        for k, replay in enumerate(replays):
            values[k, replay.action] = replay.reward
            if not replay.done:
                values[k, replay.action] += self.gamma * max(next_values[k])
        fit(self.player, self.optimizer, states, values)
        self.compare(weights(self.player), after)


class MountainCarSoftTarget(Port):
    name = "mountain_car_soft_target"
    observation_size = 2
    n_actions = 3
    reward = -1.0
    time_limit = 30
    gamma = 0.85
    capacity = 2000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.model, self.target_model = layers(2, 24, 48, 24, 3), layers(2, 24, 48, 24, 3)
        set_weights(self.model, run.initial)
        set_weights(self.target_model, run.initial)  # the tutorial draws other initial weights, for which there is no argument
        self.optimizer = th.optim.Adam(self.model.parameters(), lr=0.005, eps=1e-7)
        self.memory = deque(maxlen=self.capacity)

    def epsilons(self) -> Iterator[float]:
        epsilon = 1.0
        while True:
            epsilon *= 0.995
            epsilon = max(0.01, epsilon)
            yield epsilon

    def remember(self, i: int, step: Step) -> None:
        reward = step.reward if not step.done else -20.0
        self.memory.append(Entry(i, step.state, step.action, reward, step.next_state, step.done))

    def learn(self, i: int) -> None:
        if len(self.memory) >= 32:
            self.replay(self.training(i))
        with th.no_grad():
            for ours, theirs in zip(self.target_model.parameters(), self.model.parameters(), strict=True):
                ours.copy_(0.125 * theirs + (1 - 0.125) * ours)

    def replay(self, training: Training) -> None:
        self.compare(weights(self.target_model), training.target)
        indices = np.concatenate(training.fitted)
        np.testing.assert_array_equal(np.sort(indices), np.sort(training.batches[0]))
        samples = self.drawn_entries(indices)
        assert len(samples) == 32
        for sample, after in zip(samples, training.weights, strict=True):
            state = tensor([sample.state])
            with th.no_grad():
                target = self.target_model(state).clone()
                if sample.done:
                    target[0][sample.action] = sample.reward
                else:
                    future = max(self.target_model(tensor([sample.next_state]))[0])
                    target[0][sample.action] = sample.reward + future * self.gamma
            fit(self.model, self.optimizer, state, target)
            self.compare(weights(self.model), after)


class VectorizedEnvs(Port):
    name = "vectorized_envs"
    atol = 1e-12
    gamma = 0.95
    capacity = 32 * 1_000_000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.q, self.q_ = layers(4, 24, 24, 2).double(), layers(4, 24, 24, 2).double()
        set_weights(self.q, run.initial)
        self.optimizer = th.optim.Adam(self.q.parameters(), lr=0.001)
        self.memory = deque(maxlen=self.capacity // 32)

    def epsilons(self) -> Iterator[float]:
        for t in range(20_000):
            yield max(0.0, 1.0 - (t / 20_000 / 0.1) * (1.0 - 0.0))

    def steps(self) -> list[Any]:
        return list(zip(*(recorder.steps[: self.run.n_stored] for recorder in self.run.recorders), strict=True))

    def remember(self, i: int, step: Sequence[Step]) -> None:  # type: ignore[override]
        """:param step: one step of each environment"""
        self.memory.append(
            [Entry(32 * i + env, one.state, one.action, one.reward, one.next_state, one.done) for env, one in enumerate(step)]
        )

    def entries(self) -> list[Entry]:
        return list(itertools.chain(*self.memory))

    def index(self, entry: Entry) -> int:
        return entry.step

    def learn(self, i: int) -> None:
        if i % 100 == 0:
            set_weights(self.q_, list(self.q.parameters()))
        training = self.training(i)
        (indices,), (after,) = training.batches, training.weights
        self.compare(weights(self.q_), training.target)
        batch = self.memory[indices[0] // 32]
        assert indices.tolist() == [self.index(entry) for entry in batch]
        states, next_states = (tensor([getattr(e, name) for e in batch], th.float64) for name in ("state", "next_state"))
        rewards, dones = (tensor([getattr(e, name) for e in batch], th.float64) for name in ("reward", "done"))
        with th.no_grad():
            # the preset's replay buffer stores discounts in float32, a difference larger than 1e-12
            target = rewards + (1 - dones) * float(np.float32(self.gamma)) * self.q_(next_states).max(dim=1)[0]
        predicted = self.q(states)[range(32), [entry.action for entry in batch]]
        self.optimizer.zero_grad()
        ((target - predicted) ** 2).mean().backward()
        self.optimizer.step()
        self.compare(weights(self.q), after)


class ExponentialDecay(Port):
    name = "exponential_decay"
    gamma = 0.99
    capacity = 10_000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.net = layers(4, 64, 64, 2)
        set_weights(self.net, run.initial)
        self.optimizer = th.optim.Adam(self.net.parameters(), lr=0.0001, eps=1e-8)
        self.memory = deque(maxlen=self.capacity)

    def epsilons(self) -> Iterator[float]:
        yield from itertools.repeat(1.0, 20)
        for step in itertools.count(1):
            yield 0.01 + (1.0 - 0.01) * math.exp(-0.0001 * step)

    def steps(self) -> list[Any]:
        """Return the steps without the random one after each reset."""
        (recorder,) = self.run.recorders
        return [step for step in recorder.steps if not step.first][: self.run.n_stored]

    def remember(self, i: int, step: Step) -> None:
        next_state = np.zeros(step.state.shape) if step.done else step.next_state
        self.memory.append(Entry(i, step.state, step.action, step.reward, next_state, False))

    def target_parts(self, entry: Entry) -> tuple[float, float]:
        return entry.reward, self.gamma if entry.next_state.any() else 0.0

    def learn(self, i: int) -> None:
        if i < 20:
            return
        training = self.training(i)
        (indices,), (after,) = training.batches, training.weights
        batch = self.drawn_entries(indices)
        assert len(batch) == 20
        next_states = tensor([entry.next_state for entry in batch])
        with th.no_grad():
            target_qs = self.net(next_states).clone()
        target_qs[(next_states == 0).all(dim=1)] = 0
        targets = tensor([entry.reward for entry in batch]) + self.gamma * target_qs.max(dim=1)[0]
        one_hot = nn.functional.one_hot(th.tensor([entry.action for entry in batch]), 2)
        q = (self.net(tensor([entry.state for entry in batch])) * one_hot).sum(dim=1)
        self.optimizer.zero_grad()
        ((targets - q) ** 2).mean().backward()
        self.optimizer.step()
        self.compare(weights(self.net), after)


PORTS: list[type[Port]] = [MonteCarloMultiHead, TerminalPenalty, MountainCarSoftTarget, VectorizedEnvs, ExponentialDecay]
each_tutorial = pytest.mark.parametrize("tutorial", PORTS, ids=lambda port: port.name)


# -- updates ---------------------------------------------------------------------------------------------------------------

# Steps of an environment until the weights are compared for the last time. MountainCar makes 32 updates at a step; at 230, the
# target network of the 32 environments has been copied twice.
N_STEPS = {"monte_carlo_multi_head": 350, "mountain_car_soft_target": 75, "vectorized_envs": 230}


@each_tutorial
def test_the_preset_makes_the_updates_of_its_tutorial(tutorial: type[Port]) -> None:
    env_id, hyperparameters = preset(tutorial.name)
    # compiled updates equal the eager ones up to rounding, see test_compiled
    eager = {"compile": False} if "compile" in hyperparameters else {}
    run = Run(tutorial.name, lambda: gym.make(env_id, max_episode_steps=tutorial.time_limit), **eager)
    run.train(N_STEPS.get(tutorial.name, 200))
    tutorial(run).play()
    assert len(run.trainings) > 1
    assert sum(step.done for recorder in run.recorders for step in recorder.steps) > 1


@each_tutorial
def test_the_preset_has_the_initial_weights_of_its_tutorial(tutorial: type[Port]) -> None:
    env_id, _ = preset(tutorial.name)
    run = Run(tutorial.name, lambda: gym.make(env_id))
    ratios = []
    for layer in run.model.q_net.modules():
        if isinstance(layer, nn.Linear):
            keras = math.sqrt(6 / (layer.in_features + layer.out_features))
            limit = 1 / math.sqrt(layer.in_features) if tutorial is VectorizedEnvs else keras
            ratios.append(layer.weight.detach().abs().flatten() / limit)
            assert layer.bias.any() == (tutorial is VectorizedEnvs)
    uniform = th.cat(ratios)
    assert 0.95 < uniform.max() <= 1
    assert abs(uniform.mean() - 0.5) < 4 * math.sqrt(1 / 12 / len(uniform))
    th.testing.assert_close(weights(run.model.q_net_target), weights(run.model.q_net))


# -- replay and exploration, in games of given lengths ---------------------------------------------------------------------


class Scripted(gym.Env[Any, Any]):
    """
    An environment with episodes of given lengths, whatever the actions are. All observations are different, and none is zero.

    :param tutorial: the tutorial with the same spaces and rewards
    :param episodes: the length of each episode, and whether it is truncated
    """

    def __init__(self, tutorial: type[Port], episodes: Iterator[tuple[int, bool]]) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (tutorial.observation_size,), np.float32)
        self.action_space = gym.spaces.Discrete(tutorial.n_actions)
        self.reward = tutorial.reward
        self.episodes = episodes
        self.n_observations = 0

    def _observation(self) -> Array:
        self.n_observations += 1
        return np.full(self.observation_space.shape or (), self.n_observations / 1000, np.float32)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        self.n_left, self.is_truncated = next(self.episodes)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_left -= 1
        done = self.n_left == 0
        return self._observation(), self.reward, done and not self.is_truncated, done and self.is_truncated, {}


def scripted(tutorial: type[Port], *episodes: tuple[int, bool]) -> Callable[[], Scripted]:
    """Return a function that makes environments with cycles of these episodes, each with another first one."""
    rank = itertools.count()
    return lambda: Scripted(tutorial, itertools.islice(itertools.cycle(episodes), next(rank), None))


TERMINATED, TRUNCATED = False, True
GAMES = [(7, TERMINATED), (12, TRUNCATED), (3, TERMINATED), (2, TRUNCATED), (9, TERMINATED), (30, TERMINATED), (25, TRUNCATED)]


@each_tutorial
def test_the_preset_explores_and_stores_as_its_tutorial_does(tutorial: type[Port]) -> None:
    run = Run(tutorial.name, scripted(tutorial, *GAMES))
    # the replay buffer of the mountain car is full before that
    n_steps = 2300 if tutorial is MountainCarSoftTarget else 300 if tutorial is VectorizedEnvs else 500
    run.train(n_steps, trains=False)
    port = tutorial(run)
    port.play(learn=False)
    assert run.n_stored == n_steps

    # epsilon of every action, and of later ones
    expected = np.fromiter(itertools.islice(port.epsilons(), run.n_timesteps // run.n_envs), np.float64)
    epsilons, n_random = map(np.array, zip(*run.choices, strict=True))
    np.testing.assert_allclose(epsilons, expected[:n_steps], rtol=0, atol=1e-12)
    for i in range(n_steps, len(expected), 50):
        remaining = 1 - i * run.n_envs / run.n_timesteps
        assert run.model.exploration_schedule(remaining) == pytest.approx(expected[i], rel=0, abs=1e-12)

    # one random number decides for all environments
    assert set(n_random.tolist()) == {0, run.n_envs}
    deviation = math.sqrt((epsilons * (1 - epsilons)).sum())
    assert abs((n_random / run.n_envs - epsilons).sum()) < 4 * deviation

    # the number of copies of each transition, and the capacity, if the run is long enough for it
    assert min(run.buffer.buffer_size * run.n_envs, run.n_timesteps) == min(tutorial.capacity, run.n_timesteps)
    assert Counter(replayable(run)) == Counter(port.index(entry) for entry in port.entries())

    # the content of each transition
    entries = {port.index(entry): entry for entry in port.entries()}
    buffer = run.buffer
    for batch, _ in buffer.epoch(np.array(list(entries)), 1000):
        those = [entries[index] for index in batch.indices.tolist()]
        np.testing.assert_array_equal(batch.observations, [entry.state for entry in those])
        np.testing.assert_array_equal(batch.actions, [entry.action for entry in those])
        rewards, discounts = zip(*map(port.target_parts, those), strict=True)
        np.testing.assert_allclose(batch.rewards, rewards, rtol=1e-6)
        np.testing.assert_allclose(batch.discounts, discounts, rtol=1e-6)
        for next_state, entry, discount in zip(batch.next_observations, those, discounts, strict=True):
            if discount > 0:
                np.testing.assert_array_equal(next_state, entry.next_state)


def replayable(run: Run) -> list[int]:
    """Return the indices that the preset can draw, with their copies."""
    sampler = run.buffer.sampler
    if not sampler.draws_whole_rows:
        return list(sampler.epoch(0, run.buffer.size()).tolist())
    # enough draws of time steps that none is missed
    indices, importance_weights = sampler.sample(0, run.buffer.size(), 40 * run.buffer.size() * run.n_envs)
    assert importance_weights is None
    return sorted(set(indices.tolist()))


def test_a_game_of_four_steps_has_the_values_of_the_first_tutorial() -> None:
    run = Run("monte_carlo_multi_head", scripted(MonteCarloMultiHead, (4, TERMINATED), (4, TRUNCATED)))
    run.train(8, trains=False)
    ((batch, _),) = run.buffer.epoch(np.arange(8), 8)
    values = batch.rewards.numpy()[np.argsort(batch.indices)]
    np.testing.assert_allclose(values, [2.71, 1.9, 1, 0] * 2, rtol=1e-6)
    assert not batch.discounts.any()


# -- the end of a run ------------------------------------------------------------------------------------------------------


def run_until_stopped(tutorial: type[Port], *episodes: tuple[int, bool]) -> Run:
    """Run a preset until one of its callbacks stops it, or to its end."""
    run = Run(tutorial.name, scripted(tutorial, *episodes))
    run.train(trains=False, stops=True)
    return run


def test_the_first_tutorial_fits_after_each_ten_of_its_games() -> None:
    run = run_until_stopped(MonteCarloMultiHead, (2, TERMINATED), (3, TRUNCATED))
    # the steps of 10 games, of 20 ... and of 400
    assert [training.n_steps for training in run.trainings] == [25 * k for k in range(1, 41)]
    assert run.n_timesteps == 401 * 200


def test_the_mountain_car_stops_at_the_first_trial_that_ends_before_step_199() -> None:
    run = run_until_stopped(MountainCarSoftTarget, (200, TRUNCATED), (200, TERMINATED), (199, TERMINATED))
    assert run.model.num_timesteps == 599
    assert run.n_timesteps == 100 * 200


def test_the_last_tutorial_stops_after_a_thousand_episodes() -> None:
    run = run_until_stopped(ExponentialDecay, (4, TERMINATED), (5, TRUNCATED))
    # the first step of each episode is not stored
    assert run.model.num_timesteps == 500 * 3 + 500 * 4
    assert run.n_timesteps == 1000 * (200 - 1)


def test_the_other_runs_are_as_long_as_their_tutorials() -> None:
    for tutorial, n_steps in ((TerminalPenalty, 20_000), (VectorizedEnvs, 20_000)):
        run = Run(tutorial.name, scripted(tutorial, *GAMES))
        assert run.n_timesteps / run.n_envs == n_steps == len(list(tutorial(run).epsilons()))


# -- the command of the zoo ------------------------------------------------------------------------------------------------


def train(tutorial: type[Port], folder: Path, *arguments: str) -> str:
    """Train a preset for a short time from a folder, and return the standard error."""
    env_id, _ = preset(tutorial.name)
    config = (
        presets.preset_paths()[tutorial.name] if tutorial is not TerminalPenalty else f"sb3_dqn_ext.presets.{tutorial.name}"
    )
    n_steps = {"mountain_car_soft_target": 40, "vectorized_envs": 640}.get(tutorial.name, 300)
    command = f"-m rl_zoo3.train --algo dqn_ext --env {env_id} -n {n_steps} --seed 1 --num-threads 1 --eval-freq -1 -f logs"
    process = python(*command.split(), "-conf", config, *arguments, cwd=folder)
    assert f"Loading hyperparameters from: {config}" in output(process)
    model = DQNExt.load(folder / "logs" / "dqn_ext" / f"{env_id}_1" / f"{env_id}.zip")
    assert model.num_timesteps >= n_steps  # a game is completed
    assert n_updates_of(model) > 0
    return process.stderr


@each_tutorial
def test_the_preset_trains_from_the_zoo(tutorial: type[Port], tmp_path: Path) -> None:
    train(tutorial, tmp_path, "-params", "compile:False")


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", [TerminalPenalty, MountainCarSoftTarget, ExponentialDecay], ids=lambda t: t.name)
def test_the_preset_is_compiled_by_default(tutorial: type[Port], tmp_path: Path) -> None:
    assert "eager" not in train(tutorial, tmp_path)
