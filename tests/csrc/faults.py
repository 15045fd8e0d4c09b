"""Sources with a fault put into them."""

from tests.csrc.emulation import CSRC

# Instances for head dims other than 40, which the faults don't need and which take the longest to compile.
OTHER_HEAD_DIMS = [
    f"\n{macro}({width})" for macro in ("FORWARD", "BACKWARD", "SHORT") for width in (32, 64, 80, 128, 160)
]


def with_fault(folder, fault, left_out):
    """Copy the sources into a folder with one piece of text replaced where it occurs.

    Parameters
    ----------
    folder : Path
    fault : (str, str)
        What is written, and what is put in its place.
    left_out : sequence of str
        Instances of kernels that are not needed: faster to compile without them.
    """
    written, wrong = fault
    found = 0
    for path in [*CSRC.glob("*.cu"), *CSRC.glob("*.cuh")]:
        if path.name == "machine.cuh":
            continue
        text = path.read_text()
        found += written in text
        for instance in left_out:
            text = text.replace(instance, "")
        (folder / path.name).write_text(text.replace(written, wrong))
    assert found, f"the sources do not hold {written!r}"
