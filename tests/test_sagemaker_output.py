"""Where a run is written on SageMaker: the output first, then its copies, whatever happened."""

import json
import shutil

import pytest

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import keep_newest, publish_checkpoint
from mrigan.artifacts.run_facts import DataFacts, MachineFacts, RunFacts
from mrigan.errors import SettingsError, StorageError
from mrigan.jobs.train.output import open_output
from mrigan.settings.identity import identity
from mrigan.settings.sources import load_settings
from mrigan.storage.store import open_store
from mrigan.training.checkpoint import REVISION

RUN = {
    "run.json": "",  # filled in by ``write_run``
    "status.json": "{}",
    "metrics.jsonl": "{}\n",
    "report.html": "<p>",
    "data/manifest.jsonl": "{}\n",
    "samples/epoch-0001.png": "png",
    "plots/losses.png": "png",
    "model/generator.safetensors": "weights",
    "model/config.json": "{}",
    "checkpoints/000000013.pt": "tensors",
    "checkpoints/000000013.json": "{}",
}
IN_OUTPUT_DATA = {key for key in RUN if not key.startswith(("model/", "checkpoints/"))}


@pytest.fixture
def ml_root(tmp_path, monkeypatch):
    root = tmp_path / "ml"
    (root / "input/config").mkdir(parents=True)
    (root / "input/config/resourceconfig.json").write_text(
        json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]})
    )
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(root))
    return root


@pytest.fixture
def checkpointed(ml_root):
    """The folder that the platform keeps in S3 for this job."""
    (ml_root / "input/config/checkpointconfig.json").write_text(
        '{"LocalPath": "/opt/ml/checkpoints"}'
    )
    return ml_root / "checkpoints"


def settings_for(uri, **changed):
    options = {name: str(value) for name, value in changed.items()}
    return load_settings({"output_uri": str(uri), **options})


def facts_of(settings):
    return RunFacts(
        settings={},
        identity=identity(settings),
        revision=REVISION,
        data=DataFacts(slices=1, training=1, holdout=0, fingerprint=""),
        machine=MachineFacts(device="", device_name="", precision="", platform="", ranks=1),
        versions={},
    )


def write_run(store, settings):
    for key, text in RUN.items():
        store.put(key, text.encode())
    run_tree.write_json(store, "run.json", facts_of(settings).to_json())


def files_of(folder):
    """Relative path -> text, of everything below ``folder``."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_elsewhere_a_run_has_no_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(tmp_path / "ml"))
    settings = settings_for(tmp_path / "run")
    write_run(open_output(settings), settings)
    assert not (tmp_path / "ml").exists()


def test_each_part_goes_where_the_platform_uploads_it(ml_root, checkpointed, store_uri):
    settings = settings_for(store_uri)
    output = open_output(settings)
    write_run(output, settings)
    primary = open_store(store_uri)
    assert {info.key for info in primary.list()} == RUN.keys()
    assert files_of(ml_root / "model").keys() == {"generator.safetensors", "config.json"}
    assert files_of(ml_root / "output/data").keys() == IN_OUTPUT_DATA
    assert files_of(checkpointed) == {
        info.key: primary.get(info.key).decode() for info in primary.list()
    }


def test_the_checkpoint_folder_itself_is_written_once(ml_root, checkpointed):
    settings = settings_for(checkpointed)
    write_run(open_output(settings), settings)
    assert files_of(checkpointed).keys() == RUN.keys()
    assert files_of(ml_root / "model").keys() == {"generator.safetensors", "config.json"}


@pytest.mark.parametrize("place", ["output/data", "model", "checkpoints/below"])
def test_an_output_within_the_platforms_folders_works(ml_root, checkpointed, place):
    settings = settings_for(ml_root / place)
    write_run(open_output(settings), settings)
    assert files_of(ml_root / place).keys() >= RUN.keys()
    assert list((ml_root / "model").rglob("generator.safetensors"))


def test_a_restart_that_finds_empty_folders_fills_them(ml_root, checkpointed, store_uri):
    settings = settings_for(store_uri)
    write_run(open_output(settings), settings)
    before = {name: files_of(ml_root / name) for name in ("model", "output/data", "checkpoints")}
    for name in before:
        shutil.rmtree(ml_root / name)
    open_output(settings)
    assert {name: files_of(ml_root / name) for name in before} == before


def test_a_copy_that_is_behind_is_brought_up_to_date(ml_root, store_uri):
    settings = settings_for(store_uri)
    write_run(open_output(settings), settings)
    open_store(store_uri).put("metrics.jsonl", b"{}\n{}\n")
    open_output(settings)
    assert (ml_root / "output/data/metrics.jsonl").read_text() == "{}\n{}\n"


def test_only_looking_changes_nothing(ml_root, checkpointed, store_uri):
    settings = settings_for(store_uri)
    write_run(open_store(store_uri), settings)
    (checkpointed / "x").mkdir(parents=True)
    (checkpointed / "x/a.sagemaker-ignore").touch()
    open_output(settings, catch_up=False)
    assert not (ml_root / "model").exists()
    assert (checkpointed / "x/a.sagemaker-ignore").exists()
    open_output(settings)
    assert (ml_root / "model").exists()
    assert not (checkpointed / "x/a.sagemaker-ignore").exists()


def test_a_run_that_only_the_checkpoint_folder_holds_is_restored(ml_root, checkpointed, store_uri):
    settings = settings_for(store_uri)
    write_run(open_store(str(checkpointed)), settings)
    output = open_output(settings)
    assert {info.key: output.get(info.key).decode() for info in output.list()} == files_of(
        checkpointed
    )
    assert files_of(ml_root / "output/data").keys() == IN_OUTPUT_DATA


def test_what_the_output_holds_is_believed_before_the_checkpoint_folder(
    ml_root, checkpointed, store_uri
):
    settings = settings_for(store_uri)
    write_run(open_store(store_uri), settings)
    write_run(open_store(str(checkpointed)), settings)
    open_store(str(checkpointed)).put("metrics.jsonl", b"of long ago")
    output = open_output(settings)
    assert output.get("metrics.jsonl") == b"{}\n"
    assert files_of(checkpointed)["metrics.jsonl"] == "{}\n"


@pytest.mark.parametrize("begun", [False, True])
def test_another_run_in_the_checkpoint_folder_is_refused_and_not_mixed_in(
    ml_root, checkpointed, store_uri, begun
):
    settings = settings_for(store_uri)
    if begun:
        write_run(open_store(store_uri), settings)
    write_run(open_store(str(checkpointed)), settings_for(store_uri, seed=1))
    before = files_of(checkpointed)
    with pytest.raises(SettingsError, match=r"seed is 0, was 1; .*another S3Uri in the job's"):
        open_output(settings)
    assert files_of(checkpointed) == before
    assert not (ml_root / "model").exists()


def test_a_copy_that_failed_gets_everything_at_the_next_write(ml_root, store_uri):
    settings = settings_for(store_uri)
    output = open_output(settings)
    (ml_root / "output/data").mkdir(parents=True)
    spoilt = ml_root / "output/data/samples"
    spoilt.write_text("in the way")
    with pytest.raises(StorageError, match="samples"):
        output.put("samples/epoch-0001.png", b"png")
    with pytest.raises(StorageError, match="samples"):
        output.put("report.html", b"<p>")
    assert output.get("samples/epoch-0001.png") == b"png", "the output comes first"
    spoilt.unlink()
    output.put("status.json", b"{}")
    assert files_of(ml_root / "output/data") == {
        "samples/epoch-0001.png": "png",
        "report.html": "<p>",
        "status.json": "{}",
    }


def test_retention_reaches_the_checkpoint_folder_once_its_upload_is_over(checkpointed, store_uri):
    output = open_output(settings_for(store_uri))
    for images_seen in (13, 26):
        publish_checkpoint(output, images_seen, b"tensors", {})
    marker = checkpointed / "checkpoints/000000013.pt.sagemaker-uploading"
    marker.touch()
    keep_newest(output, 1)
    assert output.head("checkpoints/000000013.pt") is None
    assert (checkpointed / "checkpoints/000000013.pt").exists()
    output.put("status.json", b"{}")
    assert (checkpointed / "checkpoints/000000013.pt").exists()
    marker.unlink()
    output.put("status.json", b"{}")
    assert not (checkpointed / "checkpoints/000000013.pt").exists()
