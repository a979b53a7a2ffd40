"""The engines of a sweep by their names."""

from sb3_dqn_ext._validation import OpenChoice
from sb3_dqn_ext.sweep.engine import Engine
from sb3_dqn_ext.sweep.processes import ProcessEngine
from sb3_dqn_ext.sweep.ray_engine import RayEngine
from sb3_dqn_ext.sweep.submitit_engine import SubmititEngine

__all__ = ["ENGINE", "ENGINES"]

ENGINES = {"processes": ProcessEngine, "ray": RayEngine, "submitit": SubmititEngine}
_SYNONYMS = {"process": "processes", "local": "processes", "multiprocessing": "processes", "slurm": "submitit"}
ENGINE = OpenChoice("--engine", Engine, ("submit", "close"), ENGINES, _SYNONYMS)  # type: ignore[type-abstract]
