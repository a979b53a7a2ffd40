"""The functions with which DQNExt trains on the transitions of actors."""

from sb3_dqn_ext.actors.collection import close_actors, collect_from_actors
from sb3_dqn_ext.actors.settings import check_actor_combinations, parse_actors

__all__ = ["check_actor_combinations", "close_actors", "collect_from_actors", "parse_actors"]
