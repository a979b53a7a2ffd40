"""Q-networks with their heads and layers, and the policies that contain them."""
