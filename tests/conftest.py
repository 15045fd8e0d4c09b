"""Shared by all tests: no hub, no cache of the user's; without a GPU, Triton kernels run in Triton's interpreter."""

import os

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["RCV_CACHE"] = "none"
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# Before anything imports triton, which decides when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["tests.browser"]
