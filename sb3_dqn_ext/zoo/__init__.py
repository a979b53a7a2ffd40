"""
The RL Zoo with ``--algo dqn_ext``.

Where ``sb3_dqn_ext`` is installed, the zoo's own commands know the algorithm. Where its start-up hook is turned off (by
``SB3_DQN_EXT_NO_HOOK=1``) or absent, importing this package does the same, before or after the import of ``rl_zoo3``, and
``python -m sb3_dqn_ext.zoo train ...`` runs a command of the zoo with it.
"""

import importlib.util

from sb3_dqn_ext.zoo.config import ALGO, default_config
from sb3_dqn_ext.zoo.registration import register, register_imported

if importlib.util.find_spec("_sb3_dqn_ext_hook"):  # where an installation puts it
    import _sb3_dqn_ext_hook as start_hook
else:
    from sb3_dqn_ext.zoo import _start_hook as start_hook

__all__ = ["ALGO", "default_config", "register"]

start_hook.install()
register_imported()
