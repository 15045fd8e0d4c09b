"""Flow by torchvision's RAFT, with weights made here: what goes in and out, not how good it is."""

import sys

import numpy as np
import pytest
import torch

from rcv.evaluation.raft import RaftFlow
from rcv.evaluation.warping import measure_warping


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    flows = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(flows.raft_small(weights=None).state_dict(), file)
    return file


def test_flow_has_the_size_of_the_frames_and_serves_the_metrics(weights, translation):
    flow = RaftFlow(weights)
    frames = translation(2)[:, :50]
    found = flow(*frames)
    assert flow.name == "RAFT small"
    assert found.shape == (50, 64, 2) and found.dtype == np.float32 and np.isfinite(found).all()
    assert measure_warping(frames, flow).motion == pytest.approx(
        100 * np.linalg.norm(found, axis=-1).mean() / 50, rel=1e-4
    )


def test_other_weights_are_refused(weights, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold RAFT's weights"):
        RaftFlow(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        RaftFlow(tmp_path / "nowhere.pth")


def test_without_torchvision_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    with pytest.raises(ImportError, match="--flow dis needs no weights"):
        RaftFlow(tmp_path / "raft.pth")
