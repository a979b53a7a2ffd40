"""The command ``advise ENV_ID``: a starting configuration for an environment, with a reason for each value."""
