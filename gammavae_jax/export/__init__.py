"""A detector as one ONNX file."""
