"""Q-networks with their encoders, heads and layers, and the policies that contain them."""

from sb3_dqn_ext.networks.encoders import Encoder, ImpalaEncoder, MinAtarEncoder, NatureEncoder, SmallEncoder

__all__ = ["Encoder", "ImpalaEncoder", "MinAtarEncoder", "NatureEncoder", "SmallEncoder"]
