"""The run folders that the RL Zoo writes for ``dqn_ext``: their ``run.json``, and the user's classes that it names."""
