"""A trained host for use without this library."""

from ogenlib.export.onnx import PixelsToLogits, export_onnx
from ogenlib.export.open_clip import export_head, export_open_clip, to_linear_head

__all__ = ["PixelsToLogits", "export_head", "export_onnx", "export_open_clip", "to_linear_head"]
