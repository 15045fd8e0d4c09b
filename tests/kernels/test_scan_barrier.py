"""The barrier between frames of recurrent_scan, which the interpreter cannot test: it is in the machine's code."""

import json
import re

import pytest

from tests.kernels import offline

_PRINT_PTX = """
import json
from rcv.kernels import compile, shapes
case = shapes.Case("recurrent_scan", "tanh", "float16", 2, 8, 4096, 8, 40)
compilations = [item.compilation for item in compile.wanted([case], [80])]
print(json.dumps({one.name: one.compiled().asm["ptx"] for one in compilations}))
"""
_MEMORY = re.compile(r"\b(ld|st|cp)\.(global|async)")


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    return json.loads(offline.output("-c", _PRINT_PTX, cache=tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("name", ["recurrent_scan_fwd_kernel", "recurrent_scan_bwd_kernel"])
def test_threads_meet_between_two_frames(ptx, name):
    blocks = re.split(r"^(?=\$L__BB\d+_\d+:)", ptx[name], flags=re.MULTILINE)
    headers = [b.split(":")[0] for b in blocks if "Loop Header: Depth=1" in b.partition("\n")[0]]
    branch = re.compile(rf"bra(\.uni)?\s+({'|'.join(map(re.escape, headers))});")
    latches = [b for b in blocks if headers and (branch.search(b) or _falls_into(b, blocks, headers))]
    # Where the loop over frames goes on, behind the last store of one.
    behind_frames = [b for b in latches if "bar.sync" in b and not _MEMORY.search(b)]
    assert behind_frames, f"no barrier where {name} goes on to the next frame"


def _falls_into(block, blocks, labels):
    following = blocks.index(block) + 1
    return following < len(blocks) and blocks[following].split(":")[0] in labels and "bra.uni" not in block
