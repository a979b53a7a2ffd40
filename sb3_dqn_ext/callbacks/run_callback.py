"""The base class of callbacks that get all events of a run and undo their changes, however the run ends."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext.callbacks.replaced_attributes import ReplacedAttributes
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["NEVER", "ActiveRun", "RunCallback", "end_run"]

NEVER = sys.maxsize
"""an environment step that no run reaches"""


class RunCallback(BaseCallback):
    """
    The base class of this package's callbacks.

    SB3's event callbacks, such as ``EveryNTimesteps`` and ``EvalCallback``, pass the start of the training and the steps of
    their events to the callback that they hold, but no other step, no rollout and no end. ``callback_on_new_best`` does not
    even get the start. And no callback is called when an exception ends a run. Therefore a :class:`Run` calls the methods
    below, also if another callback holds this one. ``on_step`` is called as in SB3: at every step, or at the events of the
    callback that holds this one. ``_on_training_end`` is called once: if the run has a regular end, if a callback stops it,
    and by the RL Zoo after Ctrl-C.
    """

    _run: "ActiveRun | None" = None

    def init_callback(self, model: BaseAlgorithm) -> None:
        """
        Join the run that is about to begin.

        :param model: the model to be trained
        """
        run = ActiveRun.for_model(model)
        if self._run is not None and self._run is not run:
            self._run.end()
        continues = vars(self).get("model") is model and model.num_timesteps > 0
        super().init_callback(model)
        self._run = run
        run.callbacks.setdefault(self, continues)

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """
        :param locals_: the local variables of ``collect_rollouts``, which are not copied: that would take as long as the rest
        """
        self.locals = locals_

    def on_training_end(self) -> None:
        """End the training. SB3 calls this method, and the RL Zoo calls it again for its first callback, without effect."""
        if self._run is not None:
            self._run.finish(self)

    @property
    def run(self) -> "ActiveRun":
        """The current or the last run; ``learn`` must have been called."""
        assert self._run is not None
        return self._run

    # methods that subclasses override

    @property
    def _observes_from(self) -> int:
        """The environment step from which on :meth:`_on_run_step` is called."""
        return NEVER

    def _on_run_start(self, continues: bool) -> None:
        """
        Called before the first step.

        :param continues: whether the last run of this callback had the same model, and its steps are counted on
        :raises ArgumentError: if the callback cannot work with the model
        """

    def _before_rollout(self) -> None:
        """Called between two rollouts, when all transitions are stored and the training on them is done."""

    def _on_run_step(self, locals_: Mapping[str, Any]) -> None:
        """
        Called after every environment step, before any ``on_step``.

        :param locals_: the local variables of ``collect_rollouts``
        """

    def _on_step(self) -> bool:
        return True

    def _restore_model(self) -> None:
        """Undo all changes to the model. Called first at the end of every run, even if :meth:`_on_run_start` has failed."""

    def _on_run_end(self) -> None:
        """
        Release other resources, such as the logger. Called last at the end of every run, even if :meth:`_on_run_start` has
        failed.
        """


class ActiveRun:
    """
    A call of ``learn``, which passes its events to the callbacks.

    SB3 calls no method when an exception ends ``learn``, and ``save`` writes all attributes of a model, including replaced
    methods. Therefore the model gets another class for the run: a subclass of its class that overrides ``collect_rollouts``
    and ``train``. While one of these two is executed, the model has its original class.

    :param model: the model to be trained
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model: Any = model
        self.callbacks: dict[RunCallback, bool] = {}
        """the callbacks in the order in which they joined, and whether they continue"""
        self.root: BaseCallback | None = None
        """the callback of ``learn``, from the first rollout on"""
        self.is_between_rollouts = True
        """whether all transitions are stored"""
        self.is_over = False
        self.started_at = model.start_time
        """when ``learn`` was called"""
        self.replaced = ReplacedAttributes(model)
        self._started_callbacks: list[RunCallback] = []
        self._unfinished: list[RunCallback] = []
        own: Any = type(model)
        names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
        self._class: Any = own
        # bound methods, which Python does not bind to the model: it is that of the run
        methods = {"collect_rollouts": self._collect_rollouts, "train": self._train, "__reduce_ex__": self._reduce_ex}
        self._class_in_run: Any = type(own)(own.__name__, (own,), {**names, **methods, "_run": self})
        self.model.__class__ = self._class_in_run

    @staticmethod
    def for_model(model: Any) -> "ActiveRun":
        """
        Return the run of a model, a new one if necessary.

        :param model: the model to be trained
        :return: the run
        :raises ArgumentError: if its algorithm does not collect rollouts
        """
        if not hasattr(model, "collect_rollouts"):
            raise ArgumentError(f"The callbacks of sb3_dqn_ext need an algorithm with rollouts, not {type(model).__name__}.")
        end_run(model, except_started_at=model.start_time)
        return _run_of(model) or ActiveRun(model)

    def _collect_rollouts(self, env: Any, callback: BaseCallback, *args: Any, **kwargs: Any) -> Any:
        if self.started_at != self.model.start_time:  # an interrupt between two rollouts has ended this run
            self.end()
            return self.model.collect_rollouts(env, callback, *args, **kwargs)
        if self.root is None:
            self._with_own_class(self.begin, callback)
        return self._with_own_class(self._class.collect_rollouts, self.model, env, self._relay, *args, **kwargs)

    def _train(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_own_class(self._class.train, self.model, *args, **kwargs)

    def _with_own_class(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function while the model has its own class. An exception ends the run."""
        try:
            self.model.__class__ = self._class
            result = function(*args, **kwargs)
            self._leave_own_class()
        except BaseException:
            self.end()
            raise
        return result

    def _reduce_ex(self, protocol: Any) -> Any:
        """Give copies and pickles the model's own class."""
        self.model.__class__ = self._class
        try:
            return self.model.__reduce_ex__(protocol)
        finally:
            self._leave_own_class()

    def _leave_own_class(self) -> None:
        if not self.is_over:
            self.model.__class__ = self._class_in_run

    def begin(self, root: BaseCallback) -> None:
        """
        Begin the run.

        :param root: the callback of ``learn``
        """
        self.root, self._relay = root, _Relay(self.model, root, self)
        vars(root)["on_training_end"] = self._on_training_end  # SB3's event callbacks do not pass it on
        for one, continues in self.callbacks.items():
            one.num_timesteps = self.model.num_timesteps
            self._started_callbacks.append(one)
            one._on_run_start(continues)
        self._unfinished = list(self.callbacks)

    def _on_training_end(self) -> None:
        self.end(is_regular=True)

    def finish(self, callback: RunCallback) -> None:
        """
        Call the callback's ``_on_training_end``, unless that has been done.

        :param callback: a callback of the run
        """
        if self.root is None and not self.is_over:  # ``learn`` had no step to make
            self._with_own_class(self.begin, callback)
            self.end(is_regular=True)
        elif callback in self._unfinished:
            self._unfinished.remove(callback)
            BaseCallback.on_training_end(callback)

    def end(self, is_regular: bool = False) -> None:
        """
        End the run. The first call does the work, and further calls have no effect.

        The model gets its own class and its replaced attributes back. Then each callback undoes its changes to the model
        (``_restore_model``). If the end is regular, the callback of ``learn`` and the callbacks of the run get
        ``on_training_end``. At last, each callback releases its resources (``_on_run_end``). All of these calls are made even
        if one of them raises.

        :param is_regular: True: ``learn`` has reached its end; False (default): an exception or a later run has ended this run
        """
        if self.is_over:
            return
        self.is_over = True
        self.is_between_rollouts &= is_regular
        self.model.__class__ = self._class
        self._class_in_run = None
        self.replaced.restore()
        if self.root is not None:
            vars(self.root).pop("on_training_end", None)
        with ExitStack() as stack:  # it calls the functions in reverse order, all of them even if some raise
            for one in self._started_callbacks:
                stack.callback(one._on_run_end)
            if is_regular:
                stack.callback(self._finish)
            for one in self._started_callbacks:
                stack.callback(one._restore_model)

    def _finish(self) -> None:
        assert self.root is not None
        self.root.on_training_end()
        for one in self.callbacks:
            one.on_training_end()


def _overrides(callback: RunCallback, method: str) -> bool:
    return getattr(type(callback), method) is not getattr(RunCallback, method)


class _Relay(BaseCallback):
    """
    The callback of ``collect_rollouts``. It passes all events to the callback of ``learn`` and to the callbacks of the run.

    :param model: the model
    :param root: the callback of ``learn``
    :param run: the run
    """

    def __init__(self, model: Any, root: BaseCallback, run: ActiveRun) -> None:
        super().__init__()
        self.model, self.root, self._run = model, root, run
        self._locals: dict[str, Any] = {}
        self._due = 0
        self._between_rollouts = [one for one in run.callbacks if _overrides(one, "_before_rollout")]
        self._observers = [one for one in run.callbacks if _overrides(one, "_on_run_step")]

    def on_rollout_start(self) -> None:
        self._run.replaced.restore()
        for one in self._between_rollouts:
            one._before_rollout()
        self._run.is_between_rollouts = False
        self.root.on_rollout_start()
        self._run.replaced.apply()

    def update_locals(self, locals_: dict[str, Any]) -> None:
        self._run.replaced.restore()
        locals_["callback"] = self.root
        self._locals = locals_
        self.root.update_locals(locals_)

    def on_step(self) -> bool:
        n_steps = self.model.num_timesteps
        is_due = n_steps >= self._due
        if is_due:
            for one in self._observers:
                if n_steps >= one._observes_from:
                    one.num_timesteps = n_steps
                    one._on_run_step(self._locals)
        is_continued = self.root.on_step()
        if is_due:
            self._due = min([one._observes_from for one in self._observers], default=NEVER)
        if is_continued:
            self._run.replaced.apply()
        return is_continued

    def _on_step(self) -> bool:
        return True

    def on_rollout_end(self) -> None:
        self._run.is_between_rollouts = True
        self._run.replaced.restore()
        self.root.on_rollout_end()
        self._run.replaced.apply()


def _run_of(model: Any) -> ActiveRun | None:
    run: ActiveRun | None = vars(type(model)).get("_run")
    return run


def end_run(model: Any, except_started_at: float | None = None) -> None:
    """
    End the run of a model, if there is one that has not ended.

    :param model: the model
    :param except_started_at: the ``model.start_time`` of a run that is not ended; None (default): any run is ended
    """
    run = _run_of(model)
    if run is not None and run.started_at != except_started_at:
        run.end()
