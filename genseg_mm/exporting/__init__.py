"""Trained models as files that run without this package: torch.export programs, ONNX, a page for a browser."""
