"""The pack: what it holds, what a second start costs, and what it survives."""

import hashlib
import io
import json
import logging
import math
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from mrigan.data.formats import decode
from mrigan.data.manifest import decode_manifest, encode_manifest
from mrigan.data.pack import PullInterrupted, RefusedError, open_pack
from mrigan.data.phantom import draw
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.source import PhantomSource, open_source
from mrigan.errors import DataError, SettingsError, StorageError
from mrigan.storage.store import ObjectInfo, open_store

HEIGHT, WIDTH = 20, 14
DEADLINE_SECONDS = 120  # only a broken promise takes so long


def encoded(seed, kind="PNG", height=24, width=17):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Watched:
    """A source that notes what is read of it, and may be slow or fail."""

    def __init__(self, source, *, seconds=0.0, failing=()):
        self.uri, self.identity, self.recipe = source.uri, source.identity, source.recipe
        self.source, self.seconds, self.failing = source, seconds, failing
        self.reads = []

    def list(self):
        return self.source.list()

    def read(self, info, height, width, fit, series=None):
        self.reads.append(info.key)
        time.sleep(self.seconds)
        if info.key in self.failing:
            raise StorageError(f"{info.key}: gone; try again")
        return self.source.read(info, height, width, fit, series)


class Held(Watched):
    """A source of which some objects can be read, and the others not until ``go`` is set.

    Attributes:
        done: Keys of what has been read.
    """

    def __init__(self, source, *, free=math.inf, failing=()):
        super().__init__(source, failing=failing)
        self.go = threading.Event()
        self.done = []
        self._free = free

    def read(self, info, height, width, fit, series=None):
        if self.is_held(info):
            self.reads.append(info.key)
            assert self.go.wait(DEADLINE_SECONDS)
            return self.source.read(info, height, width, fit, series)
        pixels = super().read(info, height, width, fit, series)
        self.done.append(info.key)
        return pixels

    def is_held(self, info):
        return len(self.reads) >= self._free


@pytest.fixture
def shelf(tmp_path):
    """A folder of 23 slices, in subfolders, under names that sort unlike they were written."""
    root = tmp_path / "shelf"
    for number in range(23):
        write(root, f"{'cba'[number % 3]}/slice {number:02d}.png", encoded(number))
    return root


def write(root, key, data):
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def opened(shelf, tmp_path):
    """Open the shelf's pack and return it with the keys that were read."""

    def open_(**options):
        source = Watched(open_source(str(shelf)), seconds=options.pop("seconds", 0.0))
        options = {"height": HEIGHT, "width": WIDTH, "cache_dir": tmp_path / "cache", **options}
        return open_pack(source, **options), sorted(source.reads)

    return open_


def keys_under(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def slices_of(pack):
    return pack.images[pack.rows]


def expected_of(root, height=HEIGHT, width=WIDTH, fit="stretch"):
    rows = [decode((root / key).read_bytes(), height, width, fit) for key in keys_under(root)]
    return np.stack(rows)[:, None]


def test_rows_are_the_decoded_slices_in_the_order_of_their_keys(shelf, opened):
    pack, reads = opened()
    assert reads == keys_under(shelf) == [entry.key for entry in pack.manifest]
    assert pack.images.dtype == np.uint8
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))
    assert [entry.row for entry in pack.manifest] == list(range(23))
    assert {entry.status for entry in pack.manifest} == {"used"}
    assert (pack.fetched, pack.reused, pack.removed) == (23, 0, 0)


def test_a_second_start_reads_nothing(opened):
    first, _ = opened()
    second, reads = opened()
    assert reads == []
    assert (second.fetched, second.reused, second.removed) == (0, 23, 0)
    assert second.fingerprint == first.fingerprint
    assert second.manifest == first.manifest
    np.testing.assert_array_equal(slices_of(second), slices_of(first))


def test_one_changed_object_is_one_read(shelf, opened):
    first, _ = opened()
    write(shelf, "b/slice 04.png", encoded(99))
    second, reads = opened()
    assert reads == ["b/slice 04.png"]
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(slices_of(second), expected_of(shelf))
    assert opened()[1] == []


def test_new_objects_are_read_and_removed_ones_drop_out(shelf, opened, tmp_path):
    opened()
    write(shelf, "a/first of all.png", encoded(50))
    write(shelf, "b/zz.png", encoded(51))
    (shelf / "c/slice 00.png").unlink()
    (shelf / "a/slice 02.png").unlink()
    refreshed, reads = opened()
    assert reads == ["a/first of all.png", "b/zz.png"]
    assert (refreshed.fetched, refreshed.reused, refreshed.removed) == (2, 21, 2)
    np.testing.assert_array_equal(slices_of(refreshed), expected_of(shelf))
    fresh, _ = opened(cache_dir=tmp_path / "another")
    assert refreshed.fingerprint == fresh.fingerprint
    assert refreshed.manifest == fresh.manifest


def test_an_object_that_only_went_away_leaves_no_gap(shelf, opened):
    opened()
    (shelf / "a/slice 02.png").unlink()
    pack, reads = opened()
    assert (reads, pack.removed) == ([], 1)
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))


def test_refused_objects_are_no_slices_and_are_not_read_again(shelf, opened):
    for key, data in (("a/0.csv", b"a,b\n"), ("b/zero.png", b""), ("c/z.png", encoded(0)[:99])):
        write(shelf, key, data)
    pack, reads = opened(max_refused_percent=20)
    assert len(reads) == 26
    assert len(pack.rows) == 23
    reasons = {entry.key: entry.reason for entry in pack.manifest if entry.status == "refused"}
    assert reasons == {
        "a/0.csv": "text; not read in this version",
        "b/zero.png": "zero bytes",
        "c/z.png": "truncated PNG",
    }
    used = [entry for entry in pack.manifest if entry.status == "used"]
    assert [entry.row for entry in used] == list(range(23))
    assert len(pack.rows) == 23
    assert pack.rows.tolist() == sorted(pack.rows)
    expected = [decode((shelf / entry.key).read_bytes(), HEIGHT, WIDTH) for entry in used]
    np.testing.assert_array_equal(slices_of(pack)[:, 0], expected)
    again, reads = opened(max_refused_percent=20)
    assert reads == []
    np.testing.assert_array_equal(slices_of(again), slices_of(pack))
    write(shelf, "c/z.png", encoded(0))
    mended, reads = opened(max_refused_percent=20)
    assert reads == ["c/z.png"]
    assert len(mended.rows) == 24


def test_a_cache_of_an_earlier_version_whose_rows_have_no_gaps_is_read(shelf, opened, tmp_path):
    write(shelf, "a/0.csv", b"not a slice\n")
    first, _ = opened()
    rows, manifest = cache_file(tmp_path, "rows-*.u8"), cache_file(tmp_path, "manifest.jsonl")
    expected = slices_of(first)
    rows.write_bytes(expected.tobytes())
    body = encode_manifest(first.manifest)
    digest = hashlib.sha256(body).hexdigest()
    header = {"format": 1, "rows": rows.name, "row_bytes": HEIGHT * WIDTH, "sha256": digest}
    manifest.write_bytes(json.dumps(header).encode() + b"\n" + body)
    pack, reads = opened()
    assert reads == []
    assert (pack.rows.tolist(), pack.fingerprint) == (list(range(23)), first.fingerprint)
    assert pack.manifest == first.manifest
    np.testing.assert_array_equal(slices_of(pack), expected)
    write(shelf, "b/slice 04.png", encoded(99))
    assert opened()[1] == ["b/slice 04.png"]


def test_packs_of_other_shapes_do_not_share(shelf, opened):
    for options in ({}, {"fit": "pad"}, {"fit": "crop"}, {"height": 14, "width": 20}):
        pack, reads = opened(**options)
        assert len(reads) == 23
        shape = {"height": HEIGHT, "width": WIDTH, "fit": "stretch", **options}
        np.testing.assert_array_equal(slices_of(pack), expected_of(shelf, **shape))
    assert opened()[1] == []


def test_another_recipe_is_another_pack(shelf, tmp_path):
    sources = [Watched(open_source(str(shelf))) for _ in range(2)]
    sources[1].recipe = "formats of another day"
    for source in sources:
        open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=tmp_path / "cache")
        assert len(source.reads) == 23


def test_a_stray_write_reaches_no_other_start_and_torch_takes_the_images_as_they_are(opened):
    first, _ = opened()
    tensor = torch.from_numpy(first.images)
    expected = tensor.clone()
    tensor.zero_()
    assert torch.equal(torch.from_numpy(opened()[0].images), expected)


def test_who_has_a_pack_open_keeps_it_through_a_refresh(shelf, opened):
    first, _ = opened()
    before = slices_of(first)
    for number, key in enumerate(keys_under(shelf)):
        write(shelf, key, encoded(1000 + number))
    opened()
    np.testing.assert_array_equal(slices_of(first), before)


def cache_file(tmp_path, pattern):
    (found,) = (tmp_path / "cache").glob(f"*/{pattern}")
    return found


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


DAMAGE = {
    "nothing": (lambda rows, manifest: None, 0),
    "a flipped bit of a row": (lambda rows, manifest: flip(rows, 5 * HEIGHT * WIDTH + 7), 1),
    "a cut row": (lambda rows, manifest: rows.write_bytes(rows.read_bytes()[:-1]), 1),
    "half the rows": (lambda rows, m: rows.write_bytes(rows.read_bytes()[: 12 * 280]), 11),
    "no rows": (lambda rows, manifest: rows.unlink(), 23),
    "empty rows": (lambda rows, manifest: rows.write_bytes(b""), 23),
    "a flipped bit of the manifest": (lambda rows, manifest: flip(manifest, -40), 23),
    "a flipped bit of its header": (lambda rows, manifest: flip(manifest, 3), 23),
    "half a manifest": (lambda r, m: m.write_bytes(m.read_bytes()[: len(m.read_bytes()) // 2]), 23),
    "an empty manifest": (lambda rows, manifest: manifest.write_bytes(b""), 23),
    "no manifest": (lambda rows, manifest: manifest.unlink(), 23),
    "garbage": (lambda rows, manifest: manifest.write_bytes(bytes(range(256))), 23),
    "some other JSON": (lambda rows, manifest: manifest.write_bytes(b'["rows"]\n{}\n'), 23),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_broken_cache_is_mended(name, opened, shelf, tmp_path):
    opened()
    damage, reads_needed = DAMAGE[name]
    damage(cache_file(tmp_path, "rows-*.u8"), cache_file(tmp_path, "manifest.jsonl"))
    pack, reads = opened()
    assert len(reads) == reads_needed
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))
    assert opened()[1] == []


def test_a_manifest_cannot_point_out_of_its_folder(opened, tmp_path):
    opened()
    manifest = cache_file(tmp_path, "manifest.jsonl")
    header, _, body = manifest.read_bytes().partition(b"\n")
    facts = json.loads(header)
    rows = manifest.parent / facts["rows"]
    rows.rename(tmp_path / "elsewhere.u8")
    facts["rows"] = "../../elsewhere.u8"
    manifest.write_bytes(json.dumps(facts).encode() + b"\n" + body)
    assert len(opened()[1]) == 23


def test_a_warm_start_waits_for_no_lock(opened, tmp_path):
    opened()
    with FileLock(cache_file(tmp_path, "manifest.jsonl").parent / "lock"):
        assert opened()[1] == []


def test_waiting_for_another_process_can_be_stopped(opened, shelf, tmp_path):
    opened()
    write(shelf, "new.png", encoded(77))
    held = FileLock(cache_file(tmp_path, "manifest.jsonl").parent / "lock")
    with held, pytest.raises(PullInterrupted):
        opened(should_stop=lambda: True)


def test_a_cache_that_cannot_be_written_costs_a_warning(opened, shelf, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    pack, reads = opened(cache_dir=tmp_path / "file" / "cache")
    assert len(reads) == 23
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "slices_not_kept"
    assert "MRIGAN_CACHE_DIR" in record.remedy


def test_an_unreadable_object_stops_the_pull_at_once(shelf, tmp_path):
    for number in range(300):
        write(shelf, f"d/{number:03d}.png", encoded(number))
    bad = "b/slice 01.png"

    class AfterBad(Held):
        def is_held(self, _info):
            return bad in self.reads

    source = AfterBad(open_source(str(shelf)), failing={bad})
    with pytest.raises(StorageError, match="slice 01"):
        open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=tmp_path / "cache", concurrency=4)
    source.go.set()
    assert threads_end("pull")
    # Each of the other workers may have taken one more.
    assert len(source.reads) <= source.reads.index(bad) + 4


def threads_end(prefix):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def interrupt(shelf, tmp_path):
    """Pull until some slices have come, and wait for the reads that were under way then."""

    def run():
        source = Held(open_source(str(shelf)), free=5)
        with pytest.raises(PullInterrupted):
            open_pack(
                source,
                height=HEIGHT,
                width=WIDTH,
                cache_dir=tmp_path / "cache",
                concurrency=2,
                should_stop=lambda: len(source.done) >= 5,
            )
        source.go.set()
        assert threads_end("pull")

    return run


def test_an_interrupted_pull_goes_on_where_it_was(opened, shelf, interrupt):
    interrupt()
    pack, reads = opened()
    assert 0 < len(reads) < 23
    assert (pack.fetched, pack.reused) == (len(reads), 23 - len(reads))
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))


def test_a_pull_stopped_after_its_last_read_reads_nothing_again(opened, shelf):
    write(shelf, "a/0.csv", b"not a slice, so there is a gap to close\n")
    counts = []
    with pytest.raises(PullInterrupted):
        opened(
            on_progress=lambda *count: counts.append(count),
            should_stop=lambda: counts[-1] == (24, 24),
        )
    pack, reads = opened()
    assert reads == []
    (shelf / "a/0.csv").unlink()
    np.testing.assert_array_equal(slices_of(pack), expected_of(shelf))


def test_a_pull_that_never_ends_removes_what_killed_ones_left(interrupt, tmp_path):
    interrupt()
    rows = cache_file(tmp_path, "rows-*.u8")
    left = [rows.with_name(f"rows-00000000000f.u8{end}") for end in ("", ".manifest.tmp")]
    for path in left:
        path.write_bytes(b"half")
    interrupt()
    assert not any(path.exists() for path in left)


def test_progress_goes_up_to_the_number_of_reads(shelf, tmp_path):
    seen = []
    source = Held(open_source(str(shelf)), free=10)

    def note(*counts):
        seen.append(counts)
        if 0 < counts[0] < 23:  # some are done: let the others come
            source.go.set()

    cache = tmp_path / "cache"
    open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=cache, concurrency=3, on_progress=note)
    assert {total for _, total in seen} == {23}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (23, 23)
    assert len(seen) > 1


def test_reads_under_way_grow_to_the_concurrency_where_reading_is_waiting(shelf, tmp_path):
    for number in range(200):
        write(shelf, f"d/{number:03d}.png", encoded(number))
    under_way, most = set(), []

    class Slow(Watched):
        def read(self, info, height, width, fit, series=None):
            under_way.add(info.key)
            most.append(len(under_way))
            if len(under_way) >= 20:
                grown.set()
            if len(self.reads) >= 100:  # by then they have shown what reading is
                assert grown.wait(DEADLINE_SECONDS)
            pixels = super().read(info, height, width, fit, series)
            under_way.remove(info.key)
            return pixels

    grown = threading.Event()
    source = Slow(open_source(str(shelf)), seconds=0.05)
    open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=tmp_path / "cache", concurrency=24)
    assert 20 <= max(most) <= 24


def test_no_descriptor_is_left_open(opened, shelf):
    opened()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for round_number in range(3):
        write(shelf, "a/slice 02.png", encoded(500 + round_number))
        opened()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_nothing_under_the_uri_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"nothing under .*empty; check MRIGAN_INPUT_URI"):
        open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=tmp_path / "cache")


def test_a_folder_without_slices_is_told_with_reasons(opened, shelf):
    for key in keys_under(shelf):
        write(shelf, key, b"<html>")
    write(shelf, "x.dcm", bytes(128) + b"DICM" + bytes(90))
    with pytest.raises(RefusedError) as caught:
        opened(max_refused_percent=100)
    assert str(caught.value) == (
        f"none of the 24 objects under {shelf} is a slice: 'a/slice 02.png' and 22 more HTML or "
        "XML; not read in this version, 'x.dcm' DICOM; not read in this version; check "
        "MRIGAN_INPUT_URI (the output's data/manifest.jsonl has all)"
    )
    assert caught.value.exit_status == 4
    assert len(caught.value.manifest) == 24


def test_too_many_refused_objects_end_the_job_and_fetch_nothing_the_next_time(opened, shelf):
    for name in ("notes.csv", "readme.txt"):
        write(shelf, name, b"hello")
    with pytest.raises(RefusedError, match=r"^2 of 25 .* \(8.0 %, 5 % is allowed\).*notes.csv"):
        opened()
    with pytest.raises(RefusedError, match=r"raise MRIGAN_MAX_REFUSED"):
        opened(max_refused_percent=7.9)
    pack, reads = opened(max_refused_percent=8)
    assert reads == []
    assert len(pack.rows) == 23


def test_the_same_pixels_twice_are_warned_of_once(opened, shelf, caplog):
    write(shelf, "copy.png", (shelf / "a/slice 02.png").read_bytes())
    opened()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (record.getMessage(), record.copies, record.of) == ("same_slices", 1, 24)


def test_a_bucket_gives_the_pack_of_the_folder_with_its_contents(
    opened, shelf, tmp_path, bucket, s3_server
):
    uri = f"{bucket}/some/slices 1"
    store = open_store(uri)
    for key in keys_under(shelf):
        store.put(key, (shelf / key).read_bytes())
    for marker in ("a/", "empty/"):  # what consoles put for folders
        address = f"{s3_server}/{uri.removeprefix('s3://')}/{marker}".replace(" ", "%20")
        urllib.request.urlopen(urllib.request.Request(address, b"", method="PUT")).close()
    source = Watched(open_source(uri))
    shape = {"height": HEIGHT, "width": WIDTH, "cache_dir": tmp_path / "cache"}
    pack = open_pack(source, **shape, max_refused_percent=0)
    refused = [(e.key, e.reason) for e in pack.manifest if e.status == "refused"]
    assert refused == [("a/", "folder marker"), ("empty/", "folder marker")]
    assert pack.fingerprint == opened()[0].fingerprint
    store.put("b/slice 04.png", encoded(99))
    source.reads.clear()
    pack = open_pack(source, **shape)
    assert (source.reads, pack.fetched, pack.reused) == (["b/slice 04.png"], 1, 24)
    assert open_pack(source, **shape).fetched == 0


def test_what_the_listing_gives_away_is_refused_without_a_read(tmp_path):
    source = open_source(str(tmp_path))
    now = datetime.now(UTC)
    for key, size, reason in (
        ("x/", 0, "^folder marker$"),
        ("x.png", 0, "^zero bytes$"),
        ("x.png", 300 * 2**20, "^300 MiB; 256 MiB is the limit$"),
    ):
        with pytest.raises(UnusableSliceError, match=reason):  # there is nothing to read
            source.read(ObjectInfo(key, size, "", now), HEIGHT, WIDTH, "stretch")


def test_a_store_without_etags_is_watched_by_the_time_of_writing(opened, shelf, tmp_path):
    class Tagless(Watched):
        def list(self):
            return [replace(info, etag="") for info in self.source.list()]

    shape = {"height": HEIGHT, "width": WIDTH, "cache_dir": tmp_path / "cache"}
    source = Tagless(open_source(str(shelf)))
    open_pack(source, **shape)
    write(shelf, "a/slice 02.png", encoded(2))
    assert open_pack(source, **shape).fetched == 1


def test_phantoms_are_drawn_once(tmp_path):
    shape = {"height": 40, "width": 36, "cache_dir": tmp_path / "cache"}
    pack = open_pack(open_source("phantom://5"), **shape)
    assert isinstance(open_source("phantom://5"), PhantomSource)
    assert [entry.key for entry in pack.manifest] == [f"phantom-{n:06d}" for n in range(5)]
    np.testing.assert_array_equal(pack.images[:, 0], [draw(n, 40, 36) for n in range(5)])
    assert open_pack(open_source("phantom://5"), **shape).fetched == 0


@pytest.mark.parametrize("uri", ["phantom://", "phantom://0", "phantom://-3", "phantom:5"])
def test_a_phantom_uri_needs_a_count(uri):
    with pytest.raises(SettingsError, match=r"MRIGAN_INPUT_URI.*phantom://512"):
        open_source(uri)


def test_a_manifest_survives_its_file(opened):
    pack, _ = opened()
    lines = encode_manifest(pack.manifest)
    assert lines.count(b"\n") == 23
    assert tuple(decode_manifest(lines)) == pack.manifest


PREAMBLE = """
import resource, sys, time
from dataclasses import replace
from pathlib import Path
from mrigan.data.pack import open_pack
from mrigan.data.source import open_source
shelf, cache = sys.argv[1:3]
"""


@pytest.fixture
def run():
    """Start a process that pulls; it is killed if the test leaves it running."""
    started = []

    def start(script, *arguments):
        command = [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipe and waits
            process.kill()


@pytest.mark.slow
def test_processes_that_start_together_fetch_each_object_once(run, shelf, tmp_path):
    script = f"""
pack = open_pack(open_source(shelf), height={HEIGHT}, width={WIDTH}, cache_dir=Path(cache))
print(pack.fetched, pack.fingerprint)
"""
    processes = [run(script, shelf, tmp_path / "cache") for _ in range(2)]
    said = [process.communicate()[0].split() for process in processes]
    assert sorted(int(fetched) for fetched, _ in said) == [0, 23]
    assert len({fingerprint for _, fingerprint in said}) == 1


REFRESHING = f"""
import itertools
class Restless:
    '''Half of the objects change from one listing to the next.'''
    source = open_source(shelf)
    uri, identity, recipe = source.uri, source.identity, source.recipe
    def list(self):
        salt = str(time.monotonic_ns())
        return [replace(info, etag=info.etag + salt * (n % 2))
                for n, info in enumerate(self.source.list())]
    def read(self, info, *shape):
        time.sleep(0.001)
        return self.source.read(info, *shape)
print("ready", flush=True)
while True:
    open_pack(Restless(), height={HEIGHT}, width={WIDTH}, cache_dir=Path(cache))
"""


@pytest.mark.slow
def test_kills_at_any_moment_leave_a_cache_that_reads_and_no_litter(run, opened, shelf, tmp_path):
    expected, _ = opened()
    rng = np.random.default_rng(4)
    for _ in range(4):
        process = run(REFRESHING, shelf, tmp_path / "cache")
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.4))
        process.kill()
        process.communicate()
    pack, _ = opened()
    np.testing.assert_array_equal(slices_of(pack), slices_of(expected))
    assert pack.fingerprint == expected.fingerprint
    (folder,) = (tmp_path / "cache").iterdir()
    names = sorted(path.name for path in folder.iterdir() if path.name != "lock")
    assert len(names) == 2, names
    assert opened()[1] == []


@pytest.mark.slow
def test_a_pull_needs_little_more_memory_than_the_pack(run, tmp_path):
    shelf = tmp_path / "large"
    kinds = [encoded(seed, "JPEG", 512, 512) for seed in range(4)]
    for number in range(320):
        write(shelf, f"{number:03d}.jpg", kinds[number % 4])
    script = """
def peak():  # not ru_maxrss, which starts from the parent's
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
floor = peak()
pack = open_pack(open_source(shelf), height=512, width=512, cache_dir=Path(cache))
assert len(pack.images) == 320 and pack.images.max() > 0
print((peak() - floor) / pack.images.nbytes)
"""
    process = run(script, shelf, tmp_path / "cache")
    assert float(process.communicate()[0]) < 1.6


def test_a_full_disk_is_told_before_anything_is_fetched(run, shelf, tmp_path):
    script = f"""
from mrigan.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    open_pack(open_source(shelf), height={HEIGHT}, width={WIDTH}, cache_dir=Path(cache))
except DataError as error:
    print(error)
"""
    process = run(script, shelf, tmp_path / "cache")
    said = process.communicate()[0]
    assert "no room for" in said
    assert "MRIGAN_CACHE_DIR" in said
    assert not list((tmp_path / "cache").glob("*/rows-*"))
