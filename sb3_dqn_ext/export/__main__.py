"""``python -m sb3_dqn_ext.export MODEL.zip``: write a trained model to a file of another format."""

import argparse
import sys
from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import load_from_pkl

from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.export.files import FORMATS, export_model

COMMAND = "python -m sb3_dqn_ext.export"


def make_parser(program: str) -> argparse.ArgumentParser:
    """
    Return the parser of the command line.

    :param program: the name of the command in the help
    """
    made = argparse.ArgumentParser(
        program,
        description="Write a trained model to an ONNX file, or to a file of SB3's DQN or sb3-contrib's QRDQN.",
        epilog=f"example:\n  {program} logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip --to onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("model", metavar="MODEL.zip", type=Path, help="a saved model of DQNExt or of SB3's DQN")
    made.add_argument("--to", choices=FORMATS, help="the format (default: that of the suffix of --out)")
    made.add_argument("--out", type=Path, metavar="PATH", help="the file (default: MODEL.onnx or MODEL_sb3.zip)")
    made.add_argument("--vec-normalize", type=Path, metavar="PKL", help="a file of VecNormalize, for ONNX; needs --trust")
    made.add_argument("--channels-last", action="store_true", help="inputs are images before SB3 transposes them, for ONNX")
    made.add_argument(
        "--trust", action="store_true", help="import classes that MODEL.zip names, and open pickles: for your own files"
    )
    return made


def main(arguments: list[str], program: str = COMMAND) -> None:
    """
    Write the file that a command line requests.

    :param arguments: the arguments of the command line
    :param program: the name of the command in help and errors
    """
    args = make_parser(program).parse_args(arguments)
    try:
        path = output_path(args.model, args.to, args.out)
        statistics = read_statistics(args.vec_normalize, args.trust)
        model = DQNExt.load(args.model, device="cpu", trust=args.trust)
        print(export_model(model, path, args.to, statistics, args.channels_last))
    except (ArgumentError, CheckpointError, OSError) as error:
        sys.exit(f"{program}: {error}")


def output_path(model: Path, to: str | None, out: Path | None) -> Path:
    """
    Return the path of the new file.

    :param model: the path of the model
    :param to: the format; None: that of the suffix of ``out``
    :param out: the path that the user gave; None: none
    :raises ArgumentError: if neither is given, or the model would be replaced
    """
    if out is None and to is None:
        raise ArgumentError(f"--to or --out is needed: --to {' or '.join(FORMATS)}.")
    path = model.with_name(f"{model.stem}{'_sb3' if to == 'sb3' else ''}{FORMATS[str(to)]}") if out is None else out
    if path.resolve() == model.resolve():
        raise ArgumentError(f"--out={str(path)!r} is the model itself; give another path.")
    return path


def read_statistics(path: Path | None, trust: bool) -> Any:
    """
    Return the VecNormalize of a pickle; None if no path is given.

    :param path: the path
    :param trust: whether the pickle may run code
    :raises ArgumentError: if it may not
    """
    if path is None:
        return None
    if not trust:
        raise ArgumentError(
            f"--vec-normalize={str(path)!r} is a pickle, which can run any code: add --trust for your own file."
        )
    return load_from_pkl(path)


if __name__ == "__main__":
    main(sys.argv[1:])
