"""Which clips there are: a folder, or a table that lists them."""

from rcv.data.entries import ClipsError
from rcv.data.folders import EXPECTED, folder_entries
from rcv.data.tables import TABLE_SUFFIXES, table_entries


def read_entries(source):
    """Return the Entries of a folder of clips, or of a JSONL or CSV file that lists them.

    Raises
    ------
    ClipsError
        Nothing there, nothing in it, or it cannot be read at all. What is wrong with a single clip stands in its Entry.
    """
    if not source.exists():
        raise ClipsError(source, ["no such folder or file"])
    if source.is_dir():
        return folder_entries(source)
    if (
        source.suffix.lower() not in TABLE_SUFFIXES or not source.is_file()
    ):  # reading a pipe would wait for ever
        known = ", ".join(TABLE_SUFFIXES)
        raise ClipsError(source, [f"this is a file; expected a table ({known}) or a folder of {EXPECTED}"])
    return table_entries(source)
