"""The cache on disk: damaged entries are made again, a folder that cannot be written ends nothing."""

import errno
import logging
import multiprocessing
import os
import random
import time

import pytest

from rcv.data.cache import Cache, cache_folder


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read_by_another(tmp_path):
    cache = Cache(tmp_path / "new" / "cache")
    assert cache.read("a") is None
    cache.write("a", b"one")
    cache.write("b", b"")
    again = Cache(tmp_path / "new" / "cache")
    assert (again.read("a"), again.read("b"), again.read("c")) == (b"one", b"", None)


@pytest.mark.parametrize("damage", [b"", b"x" * 31, b"x" * 500, "cut", "bit", "another entry's"])
def test_a_damaged_entry_is_noticed_and_made_again(tmp_path, caplog, damage):
    cache = Cache(tmp_path)
    cache.write("key", b"payload" * 100)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    if damage == "cut":
        damage = whole[:-1]
    elif damage == "bit":
        damage = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    elif damage == "another entry's":
        cache.write("other", b"payload" * 100)
        (damage,) = (other.read_bytes() for other in files(tmp_path) if other != path)
    path.write_bytes(damage)
    assert cache.read("key") is None
    assert "damaged" in caplog.text and str(path) in caplog.text
    cache.write("key", b"new")
    assert cache.read("key") == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_cannot_be_written_is_warned_of_once(tmp_path, monkeypatch, caplog, code):
    cache = Cache(tmp_path)
    cache.write("before", b"1")

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", refuse)
        for number in range(5):
            cache.write(f"key {number}", b"2")
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and os.strerror(code) in caplog.text
    assert cache.read("before") == b"1" and cache.read("key 1") is None
    cache.write("later", b"3")
    assert cache.read("later") is None and len(files(tmp_path)) == 1


def test_a_file_in_the_folder_s_place_is_warned_of(tmp_path, caplog):
    (tmp_path / "cache").write_text("mine")
    cache = Cache(tmp_path / "cache")
    assert cache.read("key") is None
    cache.write("key", b"1")
    (told,) = caplog.records
    assert told.getMessage() == (
        f"cache: nothing more is kept in {tmp_path / 'cache'} (Not a directory); choose another folder, or none"
    )
    assert (tmp_path / "cache").read_text() == "mine"


def write_many(folder, seed):
    cache = Cache(folder)
    for number in range(60):
        cache.write(f"key {number}", f"value {number}".encode() * 200)
        kept = cache.read(f"key {(number * 7 + seed) % 60}")
        assert kept is None or kept.startswith(b"value ")


def test_processes_share_a_folder(tmp_path, caplog):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    cache = Cache(tmp_path)
    assert all(cache.read(f"key {number}") == f"value {number}".encode() * 200 for number in range(60))
    assert len(files(tmp_path)) == 60 and not caplog.records


def write_for_ever(folder):
    cache, number = Cache(folder), 0
    while True:
        cache.write(f"key {number % 50}", f"value {number % 50}".encode() * 3000)
        number += 1


def test_kills_at_any_moment_leave_whole_entries_or_none(tmp_path, caplog):
    context, moments = multiprocessing.get_context("fork"), random.Random(0)
    for _ in range(12):
        process = context.Process(target=write_for_ever, args=(tmp_path,))
        process.start()
        time.sleep(moments.uniform(0.01, 0.06))
        process.kill()
        process.join(60)
    cache = Cache(tmp_path)
    kept = [cache.read(f"key {number}") for number in range(50)]
    assert any(value is not None for value in kept)
    assert all(value in (None, f"value {number}".encode() * 3000) for number, value in enumerate(kept))
    assert not caplog.records


def test_pruning_removes_what_was_not_used_for_longest(tmp_path):
    cache = Cache(tmp_path)
    for number in range(10):
        cache.write(f"key {number}", bytes(1000))
    for number, path in enumerate(sorted(files(tmp_path))):
        os.utime(path, (number, number))
    cache.read("key 3")
    left_over = tmp_path / "ab" / ".half.part"
    left_over.parent.mkdir(exist_ok=True)
    left_over.write_bytes(b"x")
    os.utime(left_over, (0, 0))
    cache.prune(most=4 * 1032)
    assert len(files(tmp_path)) == 4 and not left_over.exists()
    assert cache.read("key 3") == bytes(1000)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("RCV_CACHE", "none")
    assert cache_folder("auto") is None and cache_folder("none") is None
    assert cache_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("RCV_CACHE", str(tmp_path / "mine"))
    assert cache_folder("auto") == tmp_path / "mine" and cache_folder("none") is None
    monkeypatch.delenv("RCV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "rcv"
