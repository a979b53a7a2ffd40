"""Q-networks, their heads and layers, and the policies that hold them."""
