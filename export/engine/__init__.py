"""`cn2 build`: TensorRT engines from exported ONNX files (docs/engines.md)."""
