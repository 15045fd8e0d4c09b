"""Compile one source for one target by NVRTC and describe the kernels in it.

Usage: build_kernel.py SOURCE.cu TARGET OUTPUT DEPFILE, where TARGET is sm_70, sm_75 (a cubin) or compute_70,
compute_75 (PTX). Beside a cubin OUTPUT.json describes its kernels. DEPFILE lists the headers for ninja.
"""

import ctypes
import importlib.util
import json
import re
import sys
from pathlib import Path

from cubin import kernels_of

INCLUDE = re.compile(r'^#include [<"](\w+\.cuh)[>"]', re.MULTILINE)
SPILLS = re.compile(
    r"Function properties for (\w+)\n"
    r"ptxas\s+\.\s+\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


class CompileError(Exception):
    """NVRTC refused a source; the message is its log."""


def compile_cuda(source, target):
    """Return the compiled code (bytes) of a source file for a target, and NVRTC's log."""
    library = ctypes.CDLL(str(_wheel_file("nvidia-cuda-nvrtc-cu12", "cuda_nvrtc", "lib", "libnvrtc.so.12")))
    headers = _wheel_file("nvidia-cuda-runtime-cu12", "cuda_runtime", "include")
    program = ctypes.c_void_p()
    text = source.read_bytes()
    _check(
        library, library.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None)
    )
    options = [
        f"--gpu-architecture={target}",
        f"-I{headers}",
        f"-I{source.parent}",
        "--std=c++17",
        "--fmad=true",
        "--ptxas-options=-v",
    ]
    arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = library.nvrtcCompileProgram(program, len(options), arguments)
    log = _output(library, program, "ProgramLog").rstrip(b"\0").decode()
    if failed:
        raise CompileError(f"{source.name} for {target}:\n{log}")
    if target.startswith("sm_"):
        return _output(library, program, "CUBIN"), log
    return _output(library, program, "PTX").rstrip(b"\0"), log


def described(code, log):
    """Return {kernel: resources} of a cubin: what `cubin.kernels_of` reads, and spilled bytes from the log."""
    kernels = kernels_of(code)
    for name, stores, loads in SPILLS.findall(log):
        kernels[name]["spill_bytes"] = int(stores) + int(loads)
    return kernels


def headers_of(source):
    """Return the project's headers that a source includes, directly or not."""
    found, pending = set(), [source]
    while pending:
        for name in INCLUDE.findall(pending.pop().read_text()):
            header = source.parent / name
            if header not in found:
                found.add(header)
                pending.append(header)
    return sorted(found)


def _wheel_file(distribution, *parts):
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        path = Path(folder, *parts)
        if path.exists():
            return path
    raise SystemExit(
        f"rcv: {'/'.join(parts)} was not found. Install {distribution} (pip install {distribution}), "
        "or set RCV_BUILD_CUDA=0 to leave the compiled kernels out."
    )


def _output(library, program, what):
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(library, code):
    if code:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise SystemExit(f"rcv: NVRTC: {library.nvrtcGetErrorString(code).decode()}")


def main(source, target, output, depfile):
    source, output = Path(source), Path(output)
    try:
        code, log = compile_cuda(source, target)
    except CompileError as error:
        raise SystemExit(str(error)) from None
    output.write_bytes(code)
    if target.startswith("sm_"):
        Path(f"{output}.json").write_text(json.dumps(described(code, log), indent=2) + "\n")
    Path(depfile).write_text(f"{output}: {' '.join(map(str, headers_of(source)))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
