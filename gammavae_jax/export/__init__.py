"""Exports a detector as ONNX files."""
