"""Export of trained models: to ONNX, and to the file format of Stable-Baselines3."""

from sb3_dqn_ext.export.files import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
