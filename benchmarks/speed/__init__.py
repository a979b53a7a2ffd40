"""
The time of a training step: DQNExt compared with SB3, SBX, sb3-contrib and a plain loop.

    python -m benchmarks.speed

The module ``workloads`` lists the workloads, ``implementations`` and ``tutorial_loop`` train them, ``measure`` times one run
in its own process, ``__main__`` starts these processes one after another, and ``report`` writes tables and charts.
"""
