"""
What a step of training costs: sb3_dqn_ext beside stock SB3, SBX, sb3-contrib and a plain loop.

    python -m benchmarks.speed

The module ``workloads`` lists what is trained, ``implementations`` and ``tutorial_loop`` train it, ``measure`` times one run
in a process of its own, ``__main__`` starts these processes one after another, and ``report`` writes tables and charts.
"""
