"""
What came of a run, as one page that needs nothing else: no network, no script, no other file. ``python -m sb3_dqn_ext.report
RUN_FOLDER`` writes it, from what the RL Zoo, SB3's ``Monitor``, its ``EvalCallback`` and its logger have left there.
"""

from sb3_dqn_ext.report.page import report

__all__ = ["report"]
