"""Initialisations of the weights of a network."""

from collections.abc import Callable

from torch import nn

__all__ = ["INITS", "INIT_SYNONYMS"]


def keras_init(module: nn.Module) -> None:
    """
    Draw Glorot uniform weights and set the biases to zero, as Keras does (Glorot and Bengio, 2010,
    https://proceedings.mlr.press/v9/glorot10a.html).
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def torch_init(module: nn.Module) -> None:
    """Keep the weights that torch has drawn."""


INITS: dict[str, Callable[[nn.Module], None]] = {"torch": torch_init, "keras": keras_init}
INIT_SYNONYMS = {"default": "torch", "pytorch": "torch", "glorot": "keras", "glorot_uniform": "keras", "xavier": "keras"}
