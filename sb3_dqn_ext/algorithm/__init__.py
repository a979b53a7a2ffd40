"""The equations of DQN and of its improvements: targets, losses, exploration, schedules."""
