import argparse
import json

import pytest

from mrigan import environment
from mrigan.errors import SettingsError
from mrigan.settings.describe import add_options, described
from mrigan.settings.fields import Settings
from mrigan.settings.identity import differences, identity
from mrigan.settings.sagemaker import LaunchSettings
from mrigan.settings.sources import load_launch, load_settings


def problems(options=None, **named):
    with pytest.raises(SettingsError) as caught:
        load_settings(options, **named)
    return caught.value.problems


def test_the_defaults_are_the_notebooks():
    settings = load_settings()
    assert (settings.image_height, settings.image_width) == (200, 160)
    assert (settings.latent_dim, settings.batch_size, settings.accumulation_steps) == (100, 32, 8)
    assert (settings.epochs, settings.model, settings.seed) == (500, "dcgan", 0)
    assert settings.input_uri == "phantom://512"


def test_the_stronger_source_wins(monkeypatch, tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("MRIGAN_EPOCHS=1\nMRIGAN_SEED=1\nMRIGAN_LATENT_DIM=1\nMRIGAN_BATCH_SIZE=1\n")
    hyperparameters = tmp_path / "hyperparameters.json"
    hyperparameters.write_text(json.dumps({"epochs": "2", "seed": "2", "latent_dim": '"2"'}))
    monkeypatch.setenv("MRIGAN_EPOCHS", "3")
    monkeypatch.setenv("MRIGAN_SEED", "3")
    settings = load_settings({"epochs": "4"}, hyperparameters=hyperparameters, dotenv=dotenv)
    found = (settings.epochs, settings.seed, settings.latent_dim, settings.batch_size)
    assert found == (4, 3, 2, 1)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    monkeypatch.setenv("MRIGAN_EPOCHS", "")
    assert load_settings().epochs == 500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMAGE_HEIGHT", "31"),
        ("IMAGE_WIDTH", "160.5"),
        ("FIT", "squash"),
        ("EPOCHS", "0"),
        ("BATCH_SIZE", "-1"),
        ("ACCUMULATION_STEPS", "eight"),
        ("G_LR", "nan"),
        ("D_LR", "0"),
        ("BETA1", "1"),
        ("SEED", "-1"),
        ("CHECKPOINT_MINUTES", "0"),
        ("MAX_REFUSED", "101"),
        ("PRECISION", "fp16"),
        ("DEVICE", "gpu"),
        ("MODEL", "r3-xl"),
        ("INPUT_URI", "gs://bucket/slices"),
        ("INPUT_URI", "phantom://many"),
        ("INPUT_URI", "s3://"),
        ("OUTPUT_URI", "phantom://3"),
        ("DOWNLOAD_CONCURRENCY", "0"),
    ],
)
def test_a_bad_value_is_named_by_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"MRIGAN_{name}", value)
    (problem,) = problems()
    assert problem.startswith(f"MRIGAN_{name}: ")


def test_every_problem_is_told_at_once_by_the_name_that_was_typed(monkeypatch, tmp_path):
    monkeypatch.setenv("MRIGAN_SEDD", "3")
    monkeypatch.setenv("MRIGAN_BATCH_SIZE", "0")
    dotenv = tmp_path / ".env"
    dotenv.write_text("MRIGAN_EPOCS=3\nCOMPOSE_FILE=a.yml\n")
    hyperparameters = tmp_path / "hyperparameters.json"
    hyperparameters.write_text(json.dumps({"epoch": 3, "beta2": "7", "sagemaker_program": "x"}))
    told = problems(
        {"latent_dim": "0"},
        unknown_options=["--batchsize"],
        hyperparameters=hyperparameters,
        dotenv=dotenv,
    )
    assert sorted(line.split(":")[0] for line in told) == [
        "--batchsize",
        "--latent-dim",
        "MRIGAN_BATCH_SIZE",
        "MRIGAN_EPOCS",
        "MRIGAN_SEDD",
        "hyperparameter beta2",
        "hyperparameter epoch",
    ]
    assert "MRIGAN_SEDD: unknown, did you mean MRIGAN_SEED?" in told
    assert "--batchsize: unknown, did you mean --batch-size?" in told


def test_a_value_is_never_repeated_in_a_message(monkeypatch):
    monkeypatch.setenv("MRIGAN_EPOCHS", "AKIAsecretkey")
    assert "AKIAsecretkey" not in problems()[0]


@pytest.mark.parametrize("text", ["[1, 2]", "{", ""])
def test_hyperparameters_that_are_no_json_object_are_refused(tmp_path, text):
    path = tmp_path / "hyperparameters.json"
    path.write_text(text)
    (problem,) = problems(hyperparameters=path)
    assert "hyperparameters.json: not a JSON object" in problem


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("s3://b/slices", "s3://b/slices/out"),
        ("s3://b", "s3://b/out"),
        ("s3://b/slices", "s3://b/slices"),
        ("data", "data/out"),
        ("data/../data", "file://data/run"),
    ],
)
def test_a_run_may_not_be_written_into_its_own_input(source, target):
    (problem,) = problems({"input_uri": source, "output_uri": target})
    assert problem.startswith("--output-uri")
    assert "--input-uri" in problem


@pytest.mark.parametrize(
    ("source", "target"),
    [("s3://b/slices", "s3://b/slices-out"), ("s3://b/in", "b/in/out"), ("data", "data-out")],
)
def test_a_place_beside_the_input_is_fine(source, target):
    assert load_settings({"input_uri": source, "output_uri": target}).output_uri == target


def test_a_key_without_kms_is_refused(monkeypatch):
    monkeypatch.setenv("MRIGAN_SSE_KMS_KEY_ID", "alias/mri")
    (problem,) = problems()
    assert problem == "MRIGAN_SSE_KMS_KEY_ID is set, but MRIGAN_SSE is not aws:kms"


def test_max_refused_takes_a_percent_sign():
    assert load_settings({"max_refused": "12.5 %"}).max_refused == 12.5


def test_what_changes_a_weight_is_part_of_a_runs_identity():
    ours, theirs = load_settings(), load_settings({"seed": "1", "epochs": "7"})
    assert differences(identity(ours), identity(theirs)) == ["seed is 0, was 1"]


def test_every_setting_has_an_option_a_variable_and_a_description():
    parser = argparse.ArgumentParser()
    add_options(parser)
    shown = parser.format_help()
    for setting in described():
        assert setting.option in shown
        assert setting.variable == f"MRIGAN_{setting.field.upper()}"
        assert len(setting.description) > 10
    assert len(list(described())) == len(Settings.model_fields)


@pytest.mark.parametrize(
    ("cuda_name", "generic_name", "in_force"),
    [
        ("", "", "expandable_segments:True"),
        ("max_split_size_mb:64", "", "max_split_size_mb:64"),
        ("expandable_segments:True", "max_split_size_mb:32", "max_split_size_mb:32"),
        ("max_split_size_mb:64", "max_split_size_mb:32", "max_split_size_mb:64"),
    ],
)
def test_the_users_allocator_string_wins(monkeypatch, cuda_name, generic_name, in_force):
    for name, value in (
        ("PYTORCH_CUDA_ALLOC_CONF", cuda_name),
        ("PYTORCH_ALLOC_CONF", generic_name),
    ):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # restores os.environ after apply_default
    assert environment.configure_allocators() == in_force


def test_a_bad_value_of_a_file_names_the_file(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("MRIGAN_SEED=one\n")
    assert problems(dotenv=dotenv) == (f"MRIGAN_SEED: takes a whole number (in {dotenv})",)


@pytest.mark.parametrize(
    ("given", "is_right"),
    [
        ({"model": "dcgan", "batch_size": 4, "micro_batch": 8}, True),
        ({"model": "dcgan", "batch_size": 4, "micro_batch": 6}, False),
        ({"model": "dcgan", "batch_size": 4, "micro_batch": 2}, False),
        ({"model": "r3-tiny", "batch_size": 4, "micro_batch": 6}, True),
    ],
)
def test_a_pass_of_dcgan_holds_whole_groups(given, is_right):
    if is_right:
        assert Settings(**given).micro_batch == given["micro_batch"]
    else:
        with pytest.raises(ValueError, match="would cut a group of batch_size 4 images"):
            Settings(**given)


ODD = ("1" + "0" * 30, "-1", "nan", "inf", "-inf", "", " ", "\x00", "é", "x" * 10_000, "1e400")
ODD += ("0x10", "~nosuchuser/x", "(" * 3000, "(.{1,99999999999})", "(a)" * 400, "[", "%ZZ")
ODD += ("file://", "s3://")


@pytest.mark.parametrize(
    ("load", "field"),
    [(load_settings, field) for field in Settings.model_fields]
    + [(load_launch, field) for field in LaunchSettings.model_fields],
)
def test_no_value_of_a_setting_is_more_than_refused(load, field, tmp_path):
    for value in ODD:
        try:
            load({field: value}, dotenv=tmp_path / "none")
        except SettingsError as error:
            for problem in error.problems:
                assert "\n" not in problem.strip()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 10**30), ("batch_size", 10**20), ("accumulation_steps", 65_537),
        ("latent_dim", 4097), ("image_height", 2049), ("keep_checkpoints", 10**9),
        ("checkpoint_minutes", 1e300), ("storage_timeout", 1e9), ("ema_images", 1e300),
        ("cache_dir", "~nosuchuser/x"), ("output_uri", "~nosuchuser/x"),
        ("volume_pattern", "(" * 3000), ("volume_pattern", "(.{1,99999999999})"),
        ("volume_pattern", "(a)" + "b" * 1000), ("input_uri", "phantom://" + "9" * 30),
    ],
)  # fmt: skip
def test_what_would_crash_a_run_is_refused_by_its_name(field, value, tmp_path):
    with pytest.raises(SettingsError) as refused:
        load_settings({field: str(value)}, dotenv=tmp_path / "none")
    assert f"--{field.replace('_', '-')}: " in refused.value.problems[0]


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("file://{}/a%20b/run", "{}/a b"),
        ("{}/a b/run", "file://{}/a%20b/"),
        ("file://localhost{}/a%20b/run", "{}/a b"),
        ("{}//a b///run", "{}/a b"),
        ("{}/link/run", "{}/a b"),
        ("{}/c/../a b/run", "{}/a b"),
        ("s3://bucket//slices/run", "s3://bucket/slices"),
    ],
)
def test_an_output_inside_its_input_is_seen_however_it_is_written(tmp_path, inside, outside):
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    chosen = {"output_uri": inside.format(tmp_path), "input_uri": outside.format(tmp_path)}
    with pytest.raises(SettingsError, match="lies inside"):
        load_settings(chosen, dotenv=tmp_path / "none")
