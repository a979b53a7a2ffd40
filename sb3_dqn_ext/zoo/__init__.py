"""
Support for ``--algo dqn_ext`` in the RL Zoo.

The start-up hook of an installation registers the algorithm when ``rl_zoo3`` is imported. Without the hook
(``SB3_DQN_EXT_NO_HOOK=1``, or no installation), an import of this package registers it, before or after the import of
``rl_zoo3``, and ``python -m sb3_dqn_ext.zoo train ...`` runs a command of the zoo.
"""

import importlib.util

from sb3_dqn_ext.zoo.config import ALGO, default_config
from sb3_dqn_ext.zoo.registration import register, register_imported

if importlib.util.find_spec("_sb3_dqn_ext_hook"):  # the module's name in an installation
    import _sb3_dqn_ext_hook as start_hook
else:
    from sb3_dqn_ext.zoo import _start_hook as start_hook

__all__ = ["ALGO", "default_config", "register"]

start_hook.install()
register_imported()
