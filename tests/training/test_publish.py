"""Uploading results, to a Hub that is a stub: what goes there, and what is said when it cannot."""

from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from rcv.models import VideoUNet
from rcv.training import PublishError, push, save_adapter
from tests.tiny import tiny_unet


class Hub:
    """An HfApi that keeps what it is called with."""

    def __init__(self, error=None, token="hf_stub"):
        self.token, self.error, self.calls = token, error, []

    def create_repo(self, repo, **options):
        if self.error is not None:
            raise self.error
        self.calls.append((repo, options))
        return SimpleNamespace(repo_id=f"ann/{repo}")

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        files = [
            path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()
        ]
        if allow_patterns is not None:
            files = [name for name in files if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        self.repo, self.files, self.message = repo_id, sorted(files), commit_message
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


@pytest.fixture
def run(tmp_path):
    unet = VideoUNet.from_config(tiny_unet().config, preset="recurrent")
    save_adapter(unet, tmp_path, base="embedded", clips={}, prompts=["a fox"], frames=3)
    for name in (
        "config.yaml",
        "losses.csv",
        "curves.png",
        "log.txt",
        ".lock",
        "checkpoints/step-000001/state.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for step in ("step-000000", "step-000009"):
        folder = tmp_path / "samples" / step
        folder.mkdir(parents=True)
        (folder / "video.gif").write_text("")
        (folder / "prompts.csv").write_text("video.gif,a fox\n")
    return tmp_path


def test_a_run_goes_up_with_its_card_and_last_samples_alone(run):
    hub = Hub()
    address = push(run, "walking", license="cc-by-4.0", api=hub)
    assert address == "https://huggingface.co/ann/walking/commit/1"
    assert hub.calls == [("walking", {"private": True, "exist_ok": True})]
    assert hub.repo == "ann/walking" and run.name in hub.message
    assert hub.files == [
        *("README.md", "adapter.safetensors", "curves.png", "losses.csv"),
        *("samples/step-000009/prompts.csv", "samples/step-000009/video.gif"),
    ]
    assert ModelCard.load(run / "README.md").data.license == "cc-by-4.0"
    push(run, "walking", public=True, message="again", api=hub)
    assert hub.calls[-1][1]["private"] is False and hub.message == "again"


def test_exports_go_up_whole(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text("{}")
    hub = Hub()
    push(tmp_path, "whole", api=hub)
    assert hub.files == ["model_index.json", "unet/config.json"]
    with pytest.raises(ValueError, match="has no model card"):
        push(tmp_path, "whole", license="mit", api=hub)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no adapter.safetensors, .*expected a run, or what `rcv export`"
    ):
        push(tmp_path, "nothing", api=Hub())


def refusal(status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError(f"{status} Client Error", response=response)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(401), r"token is not valid: `hf auth login`.*401 Client Error"),
        (refusal(403), "token may not write to walking: it needs the write permission"),
        (refusal(500), r"nothing is lost: try again later.*500"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set, .*unset it"),
        (
            ConnectionError("no route to host"),
            "cannot be reached .ConnectionError: no route to host.*with a network",
        ),
    ],
)
def test_what_keeps_it_from_going_up_is_said(run, error, message):
    with pytest.raises(PublishError, match=message):
        push(run, "walking", api=Hub(error))


def test_a_name_that_the_hub_would_not_take_is_the_user_s_mistake(run):
    with pytest.raises(ValueError, match="repo: no such name"):
        push(run, "a b", api=Hub(HFValidationError("no such name")))


def test_without_a_token_the_way_to_one_is_said(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PublishError, match=r"no token .*hf auth login.*HF_TOKEN"):
        push(run, "walking", api=Hub(token=None))


def test_the_real_hub_cannot_be_reached_from_here(run, monkeypatch):
    """With the library's own HfApi: tests run with HF_HUB_OFFLINE."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        push(run, "walking")
