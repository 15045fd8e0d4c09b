"""What is installed: the wheel's contents, the mapping of kernels/, quick imports."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

import rcv

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    # Workers of pytest-xdist would build in the same folder at the same time.
    with FileLock(tmp_path_factory.getbasetemp().parent / "wheel.lock"):
        subprocess.run([*build, str(folder), str(ROOT)], check=True, env=_environment())
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(wheel).namelist()


def _environment(**variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **variables}


def test_the_wheel_has_one_top_level_package(wheel_names):
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"rcv"}


@pytest.mark.parametrize(
    "name",
    [
        "rcv/kernels/__init__.py",
        "rcv/py.typed",
        "rcv/csrc/manifest.json",
        "rcv/study/static/study.js",
        "rcv/training/cards/16gb.yaml",
        "rcv/assets/world/clip/model.safetensors",
    ],
)
def test_the_wheel_holds(wheel_names, name):
    assert name in wheel_names


def test_the_wheel_holds_every_source_of_csrc_for_every_target(wheel_names):
    expected = {
        f"rcv/csrc/{source.stem}.{target}"
        for source in (ROOT / "csrc").glob("*.cu")
        for target in ("sm_70", "sm_75", "compute_70", "compute_75")
    }
    found = {name for name in wheel_names if name.startswith("rcv/csrc/")}
    assert found == expected | {"rcv/csrc/manifest.json"}


def test_kernels_can_be_left_out_and_the_doctor_says_so(tmp_path):
    stale = tmp_path / "rcv" / "csrc" / "attention.sm_70"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a former build")
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, env=_environment(RCV_BUILD_CUDA="0"))
    assert list(stale.parent.iterdir()) == []
    code = "import rcv.doctor as d; print(d.__file__); print(d.to_json(d.report()))"
    environment = _environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    place, _, report = done.stdout.partition("\n")
    assert Path(place).parent == tmp_path / "rcv"
    said = "rcv was built without its CUDA kernels"
    reasons = {choice["operation"]: choice["why_not"]["cuda"] for choice in json.loads(report)["operations"]}
    assert all(any(reason.startswith(said) for reason in found) for found in reasons.values())


def test_kernels_is_importable_outside_the_checkout_and_empty(tmp_path):
    code = "import rcv.kernels, importlib.util; print(rcv.kernels.__file__); print(importlib.util.find_spec('kernels'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "None"
    assert (ROOT / "kernels" / "__init__.py").read_text() == ""


def test_import_does_not_load_torch(tmp_path):
    code = "import sys, rcv; print('torch' in sys.modules, rcv.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", rcv.__version__]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = rcv.frobnicate
