"""The folders of training runs of ``dqn_ext`` with the RL Zoo: ``run.json``, and the classes of the user that it names."""
