"""``bench/gpu.py`` runs on a CPU from end to end, so that it works at the first try on a GPU."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.autograd import DeviceType

from mrigan.models.r3 import networks as r3

BENCH = Path(__file__).parents[1] / "bench"
SECTIONS = ("correctness", "speed", "limits", "start", "kernels", "quality")


def run_gpu(out, *arguments):
    """The exit status and what was written."""
    tiny = ("--device", "cpu", "--size", "32x32", "--tiny", "--seconds", "900", "--out", str(out))
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), *tiny, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    found = [json.loads(path.read_text()) for path in out.glob("gpu-cpu-*.json")]
    assert len(found) == 1, done.stdout + done.stderr
    return done, found[0]


@pytest.fixture
def modules(monkeypatch):
    """The modules beside the program."""
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_check.bench
    import gpu_check.correctness
    import gpu_check.kernels
    import gpu_check.main
    import gpu_check.report
    import gpu_check.speed
    import plain_r3

    return SimpleNamespace(check=gpu_check, plain_r3=plain_r3)


@pytest.fixture
def bench(modules, tmp_path):
    """A run on the CPU, inside a section."""
    report = modules.check.report.Report(tmp_path / "gpu-cpu", {"card": "cpu"})
    report.begin("speed")
    return modules.check.bench.Bench(
        device=torch.device("cpu"),
        size=(32, 32),
        folder="",
        is_tiny=True,
        ends=time.monotonic() + 600,
        report=report,
        arguments=[],
        section="speed",
        section_ends=time.monotonic() + 600,
    )


@pytest.mark.slow
def test_every_section_reports_success(tmp_path):
    done, found = run_gpu(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(found["sections"]) == SECTIONS
    for name, section in found["sections"].items():
        assert section["status"] == "ok", (name, section)
        assert section["rows"]
        assert not [row for row in section["rows"] if "failed" in row or "skipped" in row]
    grids = [row["grid"] for row in found["sections"]["quality"]["rows"]]
    assert len(grids) == 6
    for name in grids:
        assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).format == "PNG"
    table = next(tmp_path.glob("gpu-cpu-*.txt")).read_text()
    assert "images/s" in table
    assert table in done.stdout


@pytest.mark.slow
def test_rates_are_compared_by_themselves(tmp_path):
    done, found = run_gpu(tmp_path, "--rates")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = found["sections"]["rates"]["rows"]
    names = [f"{model} rate x{factor}" for model in ("r3-s", "r3-m") for factor in (1, 2, 4)]
    assert [row["what"] for row in rows] == ["slices", *names]


@pytest.mark.slow
def test_the_job_itself_is_timed(tmp_path):
    done, found = run_gpu(tmp_path, "--sections", "job")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = found["sections"]["job"]["rows"]
    assert [(row["what"], row["epochs"]) for row in rows] == [
        ("train dcgan", 6),
        ("train r3-tiny", 6),
    ]


def test_a_row_that_fails_says_why_and_the_rest_goes_on(bench):
    bench.row("one", lambda: 1 / 0)
    bench.row("two", lambda: {"images/s": 2.0})
    bench.section_ends = time.monotonic() + 1
    bench.row("three", lambda: {}, needs_seconds=10)
    bench.report.end("speed")
    (path,) = bench.report.stem.parent.glob("*.json")
    section = json.loads(path.read_text())["sections"]["speed"]
    assert section["status"] == "failed"
    assert section["rows"] == [
        {"what": "one", "failed": "ZeroDivisionError: division by zero"},
        {"what": "two", "images/s": 2.0},
        {"what": "three", "skipped": "no time left"},
    ]
    assert "division by zero" in bench.report.table()


@pytest.mark.slow
def test_a_dead_device_leaves_the_rest_to_another_process(modules, monkeypatch, tmp_path):
    def die(bench):
        bench.row("alive", lambda: {"images/s": 1.0})
        raise modules.check.bench.DeadDeviceError("an illegal memory access")

    import gpu

    arguments = ["--device", "cpu", "--size", "32x32", "--tiny", "--out", str(tmp_path)]
    arguments += ["--sections", "kernels,limits"]
    monkeypatch.setitem(modules.check.main.SECTIONS, "kernels", (die, 0.5))
    assert modules.check.main.run(gpu.parsed(arguments), arguments) == 1
    (path,) = tmp_path.glob("*.json")
    sections = json.loads(path.read_text())["sections"]
    assert sections["kernels"]["status"] == "failed"
    assert sections["kernels"]["rows"] == [{"what": "alive", "images/s": 1.0}]
    assert sections["limits"]["status"] == "ok"


def test_a_wrong_term_is_further_off_than_rounding(bench, modules, monkeypatch):
    correctness = modules.check.correctness
    gammas = iter((correctness._GAMMA, 1.1 * correctness._GAMMA))
    accumulated = correctness._accumulated

    def with_other_gamma(*args):
        monkeypatch.setattr(correctness, "_GAMMA", next(gammas))
        return accumulated(*args)

    assert "failed" not in correctness._half(bench, "r3-tiny", "d", "fp32")
    monkeypatch.setattr(correctness, "_accumulated", with_other_gamma)
    assert "failed" in correctness._half(bench, "r3-tiny", "d", "fp32")


def test_what_only_a_gpu_is_asked_is_asked_rightly(bench, modules, monkeypatch):
    """The names of torch.cuda exist; here they answer for a card that is not there."""
    answers = {
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 2**30,
        "max_memory_reserved": 2**31,
        "get_device_name": "NVIDIA H200",
        "get_device_properties": SimpleNamespace(
            total_memory=2**37, multi_processor_count=132, major=9, minor=0
        ),
    }
    for name, answer in answers.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    bench.device = torch.device("cuda")
    row = modules.check.speed.timed(bench, lambda count: 8 * count)
    assert (row["peak GiB"], row["reserved GiB"]) == (1, 2)
    bench.clean_up()
    args = SimpleNamespace(size=(200, 160), slices="", seconds=240.0)
    about = modules.check.main._about(bench.device, args)
    assert (about["card"], about["capability"]) == ("NVIDIA H200", "9.0")
    assert modules.check.main._slug(about["card"]) == "h200"

    def event(name, device_type, microseconds):
        time_range = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=device_type, time_range=time_range)

    events = [
        event("gemm", DeviceType.CUDA, 3000),
        event("gemm", DeviceType.CUDA, 1000),
        event("Memcpy HtoD", DeviceType.CUDA, 500),
        event("aten::mm", DeviceType.CPU, 9000),
    ]
    launches, milliseconds = modules.check.kernels._by_name(bench, events)
    assert launches == {"gemm": 2, "Memcpy HtoD": 1}
    assert milliseconds == {"gemm": 4.0, "Memcpy HtoD": 0.5}

    def fault(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fault)
    with pytest.raises(modules.check.bench.DeadDeviceError, match="illegal memory access"):
        bench.row("last", dict)


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, (41, 53)), ({"haar_levels": 2}, (41, 53)), ({"kernels": (1, 3, 1)}, (32, 32))],
)
def test_the_plain_networks_are_the_same_functions(modules, changes, size):
    preset = replace(r3.PRESETS["r3-tiny"], **changes)
    torch.manual_seed(0)
    pairs = (
        (r3.Generator(preset, 64, *size), modules.plain_r3.Generator(preset, *size)),
        (r3.Discriminator(preset, *size), modules.plain_r3.Discriminator(preset, *size)),
    )
    for (ours, plain), given in zip(pairs, ((3, 64), (3, 1, *size)), strict=True):
        copy_weights(ours, plain)
        x = torch.randn(given)
        with torch.no_grad():
            torch.testing.assert_close(plain(x), ours(x), rtol=1e-4, atol=1e-5)


def copy_weights(ours, plain):
    """Give ``plain`` those of ``ours``, which lie in another order within some kernels."""
    layers = dict(ours.named_modules())
    with torch.no_grad():
        for (name, weight), (_, target) in zip(
            ours.named_parameters(), plain.named_parameters(), strict=True
        ):
            if not weight.any():
                weight.normal_(0, 0.1)
            kind = type(layers[name.rpartition(".")[0]]).__name__
            value = {
                "Doubled": lambda kernel: kernel.transpose(0, 1),
                "FromPixels": lambda kernel: kernel[:, :, None, None],
                "ToPixels": lambda kernel: kernel.t()[:, :, None, None],
            }.get(kind, lambda kernel: kernel)(weight)
            assert value.shape == target.shape
            target.copy_(value)
