"""Shared by all tests: no hub, no user cache, one thread a process where several run."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Keep rendered clips and other cached files out of the user's home."""
    os.environ["RCV_CACHE"] = str(tmp_path_factory.mktemp("rcv-cache"))


@pytest.fixture
def seeded():
    """Seed torch's global generator: for tests that draw without a generator of their own."""
    import torch

    torch.manual_seed(0)
