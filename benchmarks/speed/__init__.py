"""
The time of a training step: DQNExt compared with SB3, SBX, sb3-contrib and plain loops.

    python -m benchmarks.speed

The module ``workloads`` lists the workloads, ``implementations``, ``tutorial_loop`` and ``cleanrl_loop`` train them on the
networks of ``networks``, ``measure`` times one run in its own process, ``__main__`` starts these processes one after another,
and ``report`` writes tables and charts. ``cuda`` measures a few workloads on a GPU.
"""
