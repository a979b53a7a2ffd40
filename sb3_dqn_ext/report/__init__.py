"""
A report on a run as one self-contained HTML page, without network, scripts or other files. ``python -m sb3_dqn_ext.report
RUN_FOLDER`` makes it from the files that the RL Zoo, SB3's ``Monitor``, its ``EvalCallback`` and its logger write.
"""

from sb3_dqn_ext.report.page import report

__all__ = ["report"]
