"""The detector's own operators (`cn2.trainer.ops`) as ONNX: of standard operators, or fused."""
