"""Compiled passes: the same numbers, and eager ones where compiling fails or takes too long."""

import threading
import time

import pytest
import torch
from torch import nn

from mrigan.models.r3.networks import Discriminator, Preset
from mrigan.runtime.time_limit import TimeLimitError, time_limit
from mrigan.training.compiled import CompiledPass

SIZE = (33, 40)


@pytest.fixture
def network():
    torch.manual_seed(0)
    D = Discriminator(Preset(widths=(8,)), *SIZE)
    for weight in D.parameters():
        if weight.ndim == 4 and not weight.any():
            nn.init.normal_(weight, 0.0, 0.1)
    return D


def events(caplog):
    ours = [each for each in caplog.records if each.name == "mrigan.training.compiled"]
    return [(each.message, each.__dict__.get("pass")) for each in ours]


@pytest.mark.slow
def test_a_pass_through_dynamo_has_the_same_numbers_and_gradients(network, caplog):
    images = torch.randn(2, 1, *SIZE)
    found = []
    for with_slope in (network.with_slope, CompiledPass(network, "with_slope", "eager")):
        network.zero_grad()
        logits, slope = with_slope(images)
        (logits.sum() + slope.square().sum()).backward()
        found.append((logits, slope, [weight.grad.clone() for weight in network.parameters()]))
    torch.testing.assert_close(found[0], found[1])
    assert events(caplog) == []


def test_a_compiler_that_fails_leaves_the_eager_pass_and_one_line(network, caplog):
    def broken(_graph, _inputs):
        raise ValueError("no compiler here")

    compiled = CompiledPass(network, "forward", broken)
    images = torch.randn(2, 1, *SIZE)
    expected = Discriminator.forward(network, images)
    for _ in range(2):
        torch.testing.assert_close(compiled(images), expected)
    assert events(caplog) == [("compile_off", "Discriminator.forward")]


def test_a_compiler_that_takes_too_long_is_not_waited_for(network, caplog):
    def endless(_graph, _inputs):
        while True:
            time.sleep(0.01)

    compiled = CompiledPass(network, "forward", endless, limit_seconds=0.5)
    images = torch.randn(2, 1, *SIZE)
    torch.testing.assert_close(compiled(images), Discriminator.forward(network, images))
    assert events(caplog) == [("compile_off", "Discriminator.forward")]


def test_memory_that_runs_out_is_no_failure_of_the_compiler(network, monkeypatch):
    compiled = CompiledPass(network, "forward", "eager")

    def full(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(compiled, "_compiled", full)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(torch.randn(2, 1, *SIZE))
    assert compiled._compiled is full


def test_a_time_limit_interrupts_what_does_not_stop_and_lets_go_of_the_rest():
    with pytest.raises(TimeLimitError, match="longer than 0 s"), time_limit(0.05):
        threading.Event().wait(60)
    with time_limit(0.05):
        pass
    time.sleep(0.2)  # no alarm is left behind


def test_beside_the_main_thread_there_is_no_limit():
    ended = []

    def work():
        with time_limit(0.01):
            time.sleep(0.1)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
