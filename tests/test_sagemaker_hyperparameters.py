"""Hyperparameters in every form that users' SDKs send, through to the settings."""

import json

import pytest

from mrigan.errors import SettingsError
from mrigan.settings.sources import load_settings

# What each SDK makes of: epochs=7, g_lr=2e-4, fit="pad", beta1=None, a run's place, a KMS key whose
# name is all digits.
FORMS = {
    "v2, str()": {
        "epochs": "7",
        "g_lr": "0.0002",
        "fit": "pad",
        "beta1": "None",
        "output_uri": "s3://bucket/run",
        "sse": "aws:kms",
        "sse_kms_key_id": "1234",
    },
    "v2 framework estimator, JSON": {
        "epochs": "7",
        "g_lr": "0.0002",
        "fit": '"pad"',
        "beta1": "null",
        "output_uri": '"s3://bucket/run"',
        "sse": '"aws:kms"',
        "sse_kms_key_id": '"1234"',
        "sagemaker_program": '"train.py"',
        "sagemaker_job_name": '"job"',
    },
    "v3, JSON but for strings": {
        "epochs": "7",
        "g_lr": "0.0002",
        "fit": "pad",
        "beta1": "null",
        "output_uri": "s3://bucket/run",
        "sse": "aws:kms",
        "sse_kms_key_id": "1234",
    },
    "by hand": {
        "epochs": 7,
        "g_lr": 2e-4,
        "fit": "pad",
        "beta1": None,
        "output_uri": "s3://bucket/run",
        "sse": "aws:kms",
        "sse_kms_key_id": 1234,
    },
    "quoted twice, blanks for nothing": {
        "epochs": '"7"',
        "g_lr": '"2e-4"',
        "fit": '"\\"pad\\""',
        "beta1": '""',
        "d_lr": "",
        "output_uri": '"s3://bucket/run"',
        "sse": "aws:kms",
        "sse_kms_key_id": '"1234"',
        "_tuning_objective_metric": "train:g_loss",
    },
}


@pytest.fixture
def settings_of(tmp_path):
    def load(values):
        path = tmp_path / "hyperparameters.json"
        path.write_text(json.dumps(values))
        return load_settings(hyperparameters=path, dotenv=tmp_path / "absent")

    return load


@pytest.mark.parametrize("form", FORMS)
def test_every_form_means_the_same(settings_of, form):
    found = settings_of(FORMS[form])
    assert (found.epochs, found.g_lr, found.fit) == (7, 2e-4, "pad")
    assert (found.beta1, found.d_lr) == (0.5, 0.0002)  # the defaults of dcgan
    assert (found.output_uri, found.sse, found.sse_kms_key_id) == (
        "s3://bucket/run",
        "aws:kms",
        "1234",
    )


@pytest.mark.parametrize("value", ['"unclosed', "[1, 2]", "{}", "True", "0x10"])
def test_what_is_no_number_stays_wrong(settings_of, value):
    with pytest.raises(SettingsError, match="hyperparameter epochs: takes a whole number"):
        settings_of({"epochs": value})


@pytest.mark.parametrize("text", ["runs/[1]", "runs/0123", "runs/{a}", "runs/true", "0123"])
def test_a_text_is_taken_as_it_is(settings_of, text):
    assert settings_of({"output_uri": text}).output_uri == text


def test_a_misspelt_one_is_refused_and_the_platforms_own_are_not(settings_of):
    with pytest.raises(SettingsError) as caught:
        settings_of({"epoch": "7", "sagemaker_region": "x", "_tuning_objective_metric": "y"})
    assert caught.value.problems == ("hyperparameter epoch: unknown, did you mean epochs?",)
