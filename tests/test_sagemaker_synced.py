"""A folder that SageMaker's agent uploads from, seen as the agent sees it."""

import threading
from pathlib import Path

import pytest

from mrigan.artifacts.checkpoints import keep_newest, list_checkpoints, publish_checkpoint
from mrigan.errors import AlreadyExistsError, StorageError
from mrigan.storage.store import StoreOptions, open_store
from mrigan.storage.synced import remove_unfinished


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def store(folder):
    return open_store(str(folder), StoreOptions(synced_folder=folder))


class Agent:
    """Looks at a folder all the time and notes every name and how long the file was.

    Attributes:
        seen: (name, size, whether it is a link) of every file.
    """

    def __init__(self, folder):
        self.seen = set()
        self._folder = folder
        self._looks = 0
        self._looked = threading.Condition()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._end.is_set():
            for path in self._folder.rglob("*"):
                try:
                    self.seen.add((path.name, path.stat().st_size, path.is_symlink()))
                except FileNotFoundError:
                    continue
            with self._looked:
                self._looks += 1
                self._looked.notify_all()

    def wait(self):
        """Wait until it has looked at all that is there now."""
        with self._looked:
            enough = self._looks + 2  # the first may have begun before
            assert self._looked.wait_for(lambda: self._looks >= enough, timeout=120)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()


@pytest.mark.parametrize("create", [False, True])
def test_the_agent_never_sees_a_name_before_the_file_is_whole(
    folder, store, tmp_path, create, monkeypatch
):
    data = bytes(8 * 2**20)
    folder.mkdir()
    source = tmp_path / "source"
    source.write_bytes(data)
    open_file = Path.open

    def open_and_wait(path, mode="r", *arguments, **options):
        opened = open_file(path, mode, *arguments, **options)
        if not mode.startswith("r"):
            agent.wait()
        return opened

    with Agent(folder) as agent:
        monkeypatch.setattr(Path, "open", open_and_wait)
        for number in range(4):
            store.put(f"{number}.pt", source if number % 2 else data, create=create)
            agent.wait()
        monkeypatch.undo()
    files = {seen for seen in agent.seen if not seen[0].endswith(".sagemaker-ignore")}
    assert files <= {(f"{number}.pt", len(data), False) for number in range(4)}
    assert len(files) == 4
    assert len(agent.seen - files) >= 4, "each was seen when it was begun"
    assert [info.key for info in store.list()] == [f"{number}.pt" for number in range(4)]


def test_a_taken_key_is_left_alone(folder, store):
    store.put("a.json", b"first", create=True)
    with pytest.raises(AlreadyExistsError, match=r"a\.json: is there already"):
        store.put("a.json", b"second", create=True)
    assert store.get("a.json") == b"first"
    store.put("a.json", b"third")
    assert store.get("a.json") == b"third"
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_nothing_behind(folder, store, tmp_path):
    store.put("plots", b"a file where a folder should be")
    with pytest.raises(StorageError, match="plots"):
        store.put("plots/losses.png", b"x")
    (folder / "model").mkdir()
    with pytest.raises(StorageError, match="model"):
        store.put("model", b"x")
    with pytest.raises(StorageError, match="absent"):
        store.put("b", tmp_path / "absent")
    assert {path.name for path in folder.iterdir()} == {"plots", "model"}


def test_markers_and_unfinished_files_are_no_objects(folder, store):
    store.put("checkpoints/000000013.json", b"{}")
    for end in ("uploading", "uploaded", "ignore"):
        (folder / f"checkpoints/000000013.json.sagemaker-{end}").touch()
    assert [info.key for info in store.list()] == ["checkpoints/000000013.json"]
    assert list_checkpoints(store) == [13]


def test_what_a_killed_process_began_is_removed_and_nothing_else(folder, store):
    store.put("deep/er/a.pt", b"x")
    (folder / "deep/er/b.pt.12345678.sagemaker-ignore").touch()
    (folder / "deep/er/a.pt.sagemaker-uploading").touch()
    remove_unfinished(folder)
    left = {path.name for path in (folder / "deep/er").iterdir()}
    assert left == {"a.pt", "a.pt.sagemaker-uploading"}
    remove_unfinished(folder / "nowhere")


def test_a_file_under_upload_is_deleted_by_a_later_checkpoint(folder, store):
    for images_seen in (13, 26):
        publish_checkpoint(store, images_seen, b"tensors", {})
    marker = folder / "checkpoints/000000013.pt.sagemaker-uploading"
    marker.touch()
    keep_newest(store, 1)
    assert list_checkpoints(store) == [26]
    assert store.get("checkpoints/000000013.pt") == b"tensors"
    marker.with_name("000000013.pt.sagemaker-uploaded").touch()
    keep_newest(store, 1)
    assert store.head("checkpoints/000000013.pt") is None


def test_deleting_what_is_not_there_is_fine(folder, store):
    store.delete("a")
    folder.mkdir()
    store.delete("a")


def test_only_the_synced_folder_is_written_so(tmp_path, folder):
    options = StoreOptions(synced_folder=folder)
    below = open_store(str(folder / "run"), options)
    below.put("a.sagemaker-uploaded", b"x")
    assert below.list() == []
    beside = open_store(f"{folder}-2", options)
    beside.put("a.sagemaker-uploaded", b"x")
    assert [info.key for info in beside.list()] == ["a.sagemaker-uploaded"]
