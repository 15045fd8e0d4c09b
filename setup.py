"""Build of rcv-video: everything static is in pyproject.toml; this file maps packages and runs CMake.

`kernels/` and `benchmarks/` are installed as `rcv.kernels` and `rcv.benchmarks`: a top-level package `kernels`
would shadow the Hugging Face package of that name, and `benchmarks` is anyone's name. CMake builds what csrc/ holds
into `rcv/csrc`, on Linux, the only system with GPUs that these kernels are for and the compiler's wheel;
RCV_BUILD_CUDA=0 leaves it out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()


class BuildWithCMake(build_py):
    """Copies the Python packages, then lets CMake and ninja add the compiled kernels."""

    def run(self):
        super().run()
        package = ROOT / "rcv" if self.editable_mode else Path(self.build_lib).resolve() / "rcv"
        target = package / "csrc"
        left_out = os.environ.get("RCV_BUILD_CUDA", "1") == "0" or not sys.platform.startswith("linux")
        built = set() if left_out else self.build_kernels(target)
        # setuptools packs whatever a former build left there.
        for stale in {*target.glob("*")} - built:
            stale.unlink()

    def build_kernels(self, target):
        """Build the kernels into a folder and return the files that they are in."""
        cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
        if cmake is None or ninja is None:
            raise SystemExit(
                "rcv: CMake or ninja was not found. Install cmake and ninja (pip install cmake ninja), "
                "or set RCV_BUILD_CUDA=0 to leave the compiled kernels out."
            )
        build = ROOT / "build" / "cmake"
        configure = [
            cmake,
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "-G",
            "Ninja",
            # named each time: an isolated build's own programs are gone at the next one, but stay in CMake's cache
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        subprocess.run([*configure, f"-DCMAKE_INSTALL_PREFIX={target}"], check=True)
        subprocess.run([cmake, "--build", str(build), "--target", "install"], check=True)
        return {Path(line) for line in (build / "install_manifest.txt").read_text().splitlines()}


setup(
    packages=[*find_packages(include=["rcv", "rcv.*"]), "rcv.kernels", "rcv.benchmarks"],
    package_dir={"rcv": "rcv", "rcv.kernels": "kernels", "rcv.benchmarks": "benchmarks"},
    package_data={
        "rcv": ["py.typed", "assets/**/*", "study/static/*", "training/cards/*.yaml"],
        "rcv.kernels": ["tiles.json"],
    },
    cmdclass={"build_py": BuildWithCMake},
)
