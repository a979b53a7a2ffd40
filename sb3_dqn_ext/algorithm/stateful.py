"""The state of a choice in a checkpoint."""

import copy
from typing import Any

from sb3_dqn_ext._validation import parameters_of

__all__ = ["Stateful"]


class Stateful:
    """
    An object whose state is part of a checkpoint, so that a resumed run continues with the same bits.

    The default suffices for an object without a state, and for one whose attributes are numbers, strings, arrays, tensors, or
    lists, tuples and dictionaries of these. For anything else, such as a ``numpy.random.Generator``, override both methods.
    """

    def state_dict(self) -> dict[str, Any]:
        """
        Return the state that a checkpoint holds.

        :return: nested plain data, arrays and tensors; by default a copy of all attributes but those that are named as an
            argument of the constructor, since a run is resumed with an object that is constructed in the same way
        """
        arguments = parameters_of(type(self))
        return {name: copy.deepcopy(value) for name, value in vars(self).items() if name not in arguments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Take over the state of an object that was constructed in the same way.

        :param state: the result of :meth:`state_dict`
        """
        vars(self).update(copy.deepcopy(state))
