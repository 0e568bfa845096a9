"""What a step costs, counted, is what docs/step-costs.md says, and within its bounds."""

import importlib.util
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def step_costs():
    spec = importlib.util.spec_from_file_location("step_costs", REPO / "bench" / "step_costs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_todays_numbers(step_costs):
    assert step_costs.table() in step_costs.PAGE.read_text()


def test_a_step_of_dcgan_is_few_calls_and_no_read(step_costs):
    settings = step_costs.settings_of("dcgan", image_height=32, image_width=32)
    costs = step_costs.whole_step(settings)
    assert costs.calls <= 450
    assert costs.host_reads == 0


def test_r3_m_moves_few_bytes_and_loops_over_no_channels(step_costs):
    d_half, g_half = step_costs.halves_of_64(step_costs.settings_of("r3-m"))
    assert d_half.convolutions <= 300
    assert d_half.calls <= 750
    assert d_half.gigabytes / 64 + g_half.gigabytes / 64 <= 2.5


def test_a_read_by_the_host_is_counted(step_costs):
    import torch

    with step_costs.Counted() as counted:
        float(torch.ones(()))
    assert counted.costs.host_reads == 1
