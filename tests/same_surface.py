"""
Compare the public interface of two checkouts: ``python -m tests.same_surface OLD NEW``.

- the signatures of the classes and functions that the pages of docs/ list, whichever modules they are in
- the names and keys that arguments and YAML files can contain, as the error messages list them
- the tags of a run in TensorBoard
- the keys of the networks and of the saved file, for each return model with each head

Differences are printed: removed items with ``-``, new ones with ``+``. The exit status is 1 if there are any.
"""

import importlib
import inspect
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.checkouts import PACKAGE, report, results, start, two_checkouts
from tests.same_bits import HEADS, RETURNS, Training, make_model, policy_kwargs

Part = tuple[str, list[str]]  # a part of the interface, and the names in it


# in the process of one checkout


def documented(docs: Path) -> Iterator[tuple[str, Any]]:
    """Return the classes and functions that the pages list, with their names."""
    for page in sorted(docs.rglob("*.md")):
        for target, options in re.findall(r"^::: ([\w.]+)\n((?:    .*\n)*)", page.read_text(), flags=re.MULTILINE):
            members = (yaml.safe_load(options) or {"options": {}})["options"].get("members", True)
            parent, _, name = target.rpartition(".")
            if inspect.isclass(getattr(importlib.import_module(parent), name, None)):
                yield name, getattr(importlib.import_module(parent), name)
                continue
            module = importlib.import_module(target)
            for member in members if isinstance(members, list) else module.__all__ if members else ():
                yield member, getattr(module, member)


def signature(function: Callable[..., Any]) -> list[str]:
    """Return the parameters and the return type of a function, without the modules of the types."""
    try:
        found = inspect.signature(function)
    except ValueError:  # an error class without its own constructor
        return []
    texts = [*map(str, found.parameters.values()), f"-> {found.return_annotation}"]
    return [re.sub(r"\b(?:[a-zA-Z_]\w*\.)+(?=[a-zA-Z_])|<class '|'>| at 0x\w+", "", text) for text in texts]


def signatures(docs: Path) -> Iterator[Part]:
    for name, documentation in documented(docs):
        if not callable(documentation):
            yield f"signature of {name}", [repr(documentation)]
            continue
        yield f"signature of {name}", signature(documentation)
        for parent in reversed(inspect.getmro(documentation) if inspect.isclass(documentation) else ()):
            if parent.__module__.partition(".")[0] == PACKAGE:
                for method, function in vars(parent).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"signature of {name}.{method}", signature(function)


def listed(make: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Return the names that an error message lists for an unknown name."""
    try:
        make(*args, **kwargs)
    except ValueError as error:
        names = re.search(r"can be one of: (.*?)\.(?= |$)", str(error))
        return names[1].split(", ") if names else [str(error)]
    return ["no error"]


def accepted() -> Iterator[Part]:
    """Return the names and keys that arguments can contain."""
    from sb3_dqn_ext import DQNExt
    from sb3_dqn_ext.zoo.config import check_config

    wrong = {"nothing": 1}

    def of(**kwargs: Any) -> list[str]:
        return listed(DQNExt, "MlpPolicy", "CartPole-v1", device="cpu", **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "zoo.yml")
        path.write_text("CartPole-v1:\n  nothing: 1\n")
        yield "keys of a configuration of the zoo", listed(check_config, path)
    yield "keys of DQNExt", of(**wrong)
    for name in ("target_policy", "exploration"):
        names = of(**{name: "nothing"})
        yield f"names of {name}", names
        for one in names:
            yield f"keys of {name}_kwargs of {one}", of(**{name: one, f"{name}_kwargs": wrong})
    schedules = of(exploration_kwargs={"schedule": {"name": "nothing"}})
    yield "names of schedules", schedules
    for one in schedules:
        yield f"keys of the schedule {one}", of(exploration_kwargs={"schedule": {"name": one, **wrong}})
    for group, names_of in {
        "policy_kwargs": ("head", "returns", "loss", "init"),
        "replay_buffer_kwargs": ("sampler",),
    }.items():
        yield f"keys of {group}", of(**{group: wrong})
        for name in names_of:
            names = of(**{group: {name: "nothing"}})
            yield f"names of {name}", names
            for one in names if name in ("returns", "sampler") else ():
                yield f"keys of {name}_kwargs of {one}", of(**{group: {name: one, f"{name}_kwargs": wrong}})


def tags() -> Iterator[Part]:
    """Return the TensorBoard tags of a run with diagnostics."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sb3_dqn_ext.callbacks import DiagnosticsCallback

    callback = DiagnosticsCallback(every=100, calibration={"every": 100, "n_episodes": 1})
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Training({"tensorboard_log": folder}))
        model.learn(300, callback=callback, log_interval=1)
        for kind, names in EventAccumulator(f"{folder}/DQNExt_1").Reload().Tags().items():
            yield f"tags: {kind}", sorted(names) if isinstance(names, list) else [str(names)]


def files() -> Iterator[Part]:
    """Return the keys of the networks and of the saved file."""
    for returns, returns_kwargs in RETURNS.items():
        for head, head_arch in HEADS.items():
            name = f"{returns}, {head}"
            kwargs = policy_kwargs(head=head, head_arch=head_arch, returns=returns, returns_kwargs=returns_kwargs)
            model = make_model(Training(kwargs))
            yield f"state_dict of {name}", [f"{key} {[*value.shape]}" for key, value in model.policy.state_dict().items()]
            with tempfile.TemporaryDirectory() as folder:
                model.save(f"{folder}/model")
                with zipfile.ZipFile(f"{folder}/model.zip") as archive:
                    yield f"saved file of {name}", [*archive.namelist(), *json.loads(archive.read("data"))]


def run(checkout: str) -> None:
    """Report every part of the interface, or the error if a part cannot be determined."""
    for name, part in {
        "signatures": signatures(Path(checkout, "docs")),
        "names and keys": accepted(),
        "tags": tags(),
        "files": files(),
    }.items():
        try:
            for found in part:
                report(found)
        except Exception as error:
            report((f"error in {name}", [repr(error)]))


# in the process that compares


def main() -> None:
    options = two_checkouts(str(__doc__)).parse_args()
    old, new = (dict(results(start(path, __spec__.name, path.resolve()))) for path in (options.old, options.new))
    differing = [name for name in old | new if old.get(name) != new.get(name)]
    for name in differing:
        before, after = old.get(name, []), new.get(name, [])
        print(f"{name}:{' in another order' * (sorted(before) == sorted(after))}")
        for one in [f"- {one}" for one in before if one not in after] + [f"+ {one}" for one in after if one not in before]:
            print(f"    {one}")
    print(f"{len(old | new) - len(differing)} of {len(old | new)} parts of the interface are the same")
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
