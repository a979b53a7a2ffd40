"""What the page shows: curves, values, a film."""

from collections.abc import Iterable, Iterator

from gymnasium import spaces

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import curves, models, values
from sb3_dqn_ext.report.page import Html, element, figure, missing, together
from sb3_dqn_ext.report.pictures import chart, charts_of, film, logged_image, newest_film, picture
from sb3_dqn_ext.report.run_data import CALIBRATION, EPISODES, EVALUATIONS, LOG, MODEL, Known
from sb3_dqn_ext.report.tables import returns

__all__ = ["calibration", "learning", "video"]

SCATTER, EPISODE = "calibration/scatter", "video/episode"


def _charts(drawn: Iterable[Html]) -> Html:
    return element("div", *drawn, class_="charts")


@together
def learning(known: Known) -> Iterator[Html]:
    """Returns, and what else was logged."""
    yield known.attempt("learning curve", lambda: _returns(known))
    for what in (EPISODES, EVALUATIONS):
        if what in known.problems:
            yield known.missing(what)
    if known.log is None:
        yield known.missing(LOG)
        return
    logged = known.log.scalars
    shown, of_calibration = charts_of(logged)
    for group, charts in shown.items():
        yield element("h3", group.capitalize())
        yield _charts(chart(logged, title, names) for title, names in charts.items())
    images = {name: content for name, content in known.log.images.items() if name not in (SCATTER, EPISODE)}
    if images:
        yield element("h3", "Pictures")
        yield _charts(_logged(known, name, content) for name, content in images.items())
    groups = [*shown.values(), of_calibration]
    others = sorted(logged.keys() - {name for charts in groups for names in charts.values() for name in names})
    if others:
        yield element("p", element("small", f"Logged, too: {', '.join(others)}."))


def _returns(known: Known) -> Html:
    run = known.run
    if known.episodes is None and known.evaluations is None:
        raise ArgumentError(f"{run.folder} has neither training episodes nor evaluations.")
    if known.episodes is None:
        drawn = curves.plot_evaluations({run.name: [run]}, run.name)
    elif known.evaluations is None:
        drawn = curves.plot_learning({run.name: [run]}, run.name)
    else:
        drawn = curves.plot_run(run.folder)
    told = "; ".join(f"{name}: {value}, {note}" for name, value, note in returns(known))
    return figure(picture(drawn, f"Returns over environment steps. {told}."), class_="wide")


def _logged(known: Known, name: str, content: bytes) -> Html:
    return known.attempt(name, lambda: figure(logged_image(content, name), f"{name}, the last of the log"))


@together
def calibration(known: Known) -> Iterator[Html]:
    """Predicted beside realised values, now and in the course of training, and the values of states."""
    yield known.attempt(CALIBRATION, lambda: _scatter(known)) if known.played is not None else known.missing(CALIBRATION)
    log = known.log
    if known.played is None and log is not None and SCATTER in log.images:
        yield _logged(known, SCATTER, log.images[SCATTER])
    yield element("h3", "In the course of training")
    charts = {} if log is None else charts_of(log.scalars)[1]
    if log is not None and charts:
        yield _charts(chart(log.scalars, title, names) for title, names in charts.items())
    else:
        yield missing(
            "calibration in the log",
            "none was logged. ValueCalibrationCallback, or DiagnosticsCallback, does it every so often.",
        )
    yield element("h3", "Values of states")
    yield known.attempt("map of values", lambda: _map(known))


def _scatter(known: Known) -> Html:
    found, path = known.played, known.model_file
    assert found is not None
    assert path is not None
    predicted, realised = found.predicted.mean(), found.realised.mean()
    told = (
        f"{known.n_played} episodes that {path.name} has just played, each after some random actions. Of "
        f"{len(found.predicted):,} actions, a return of {predicted:.4g} was predicted and one of {realised:.4g} realised, on "
        f"average: values are {'over' if found.bias > 0 else 'under'}estimated by {abs(found.bias):.3g}. The correlation is "
        f"{found.correlation:.2f}."
    )
    drawn = values.plot_calibration(found, known.run.name)
    return figure(picture(drawn, "Predicted over realised values, a point for each action."), told, "wide")


def _map(known: Known) -> Html:
    run, model, path = known.run, known.model, known.model_file
    if model is None or path is None:
        raise ArgumentError(known.problems[MODEL])
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"observations are no vectors, but of {space}.")
    models.check_plain(run, "sb3_dqn_ext.plot.plot_value_map() draws it.")
    try:
        drawn = values.plot_value_map(model, run.name, run.env_id or "")
    except ArgumentError as error:
        if space.shape[0] == 2:
            raise
        command = f"python -m sb3_dqn_ext.plot {run.folder} --kind map --slice X Y"
        raise ArgumentError(f"observations have {space.shape[0]} numbers. `{command}` draws it over two of them.") from error
    told = f"The value of the best action, and which one it is, as {path.name} says; observations that are no axis are 0."
    return figure(picture(drawn, told), told, "wide")


def video(known: Known) -> Html:
    """The newest film."""
    path = newest_film(known.run.folder)
    if path is not None:
        return figure(film(path), f"{path.parent.name}/{path.name}")
    if known.log is not None and EPISODE in known.log.images:
        return figure(logged_image(known.log.images[EPISODE], EPISODE), "The last film of the log.")
    how = "EpisodeVideoCallback films in the course of training"
    if known.run.arguments:
        logs = known.run.arguments.get("log_folder", "logs")
        how += f", `python -m rl_zoo3.record_video --algo {known.run.algo} --env {known.run.env_id} -f {logs}` afterwards"
    raise ArgumentError(f"{known.run.folder / 'videos'} holds no mp4 file. {how}.")
