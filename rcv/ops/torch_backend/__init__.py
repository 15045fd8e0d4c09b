"""The operations in lean PyTorch: runs on every device that PyTorch has, and keeps inputs, outputs and LSE alone."""
