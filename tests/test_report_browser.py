"""The report in a real browser: light and dark, on a phone, by the keyboard, without a network."""

import json
import os
import re
import shutil
import subprocess

import pytest

from mrigan.artifacts.grids import render_grid
from mrigan.artifacts.report.content import Stored
from mrigan.artifacts.report.page import render_report
from mrigan.storage.store import open_store
from test_artifacts_pictures import HEIGHT, REAL, WIDTH, content_of, noise, rows_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="apt-get install chromium"
    ),
]
DARK = "--blink-settings=preferredColorScheme=0"

# Contrast as WCAG 2.2 has it, of every text that is seen with what is behind it.
LOOK = """
const parse = colour => colour.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
  v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
).reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const found = parse(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
let least = 99, worst = "";
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.closest("script, style") || !element.getClientRects().length) continue;
  const pair = [parse(getComputedStyle(element).color), behind(element)].map(light);
  const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (contrast < least) { least = contrast; worst = element.outerHTML.slice(0, 120); }
}
const visible = () => [...document.querySelectorAll("img.frame")]
  .filter(e => e.getClientRects().length).map(e => e.dataset.epoch);
const range = document.getElementById("epoch");
const before = visible();
range.focus();
range.stepDown(); range.dispatchEvent(new Event("input"));
const found = {
  contrast: least, worst, before, after: visible(),
  shown: document.getElementById("shown").textContent,
  focused: document.activeElement.id,
  wide: document.documentElement.scrollWidth - innerWidth,
  paper: getComputedStyle(document.body).backgroundColor,
  broken: [...document.images].filter(e => !e.complete || !e.naturalWidth).length,
  exact: [...document.querySelectorAll(".exact")].map(e => getComputedStyle(e).imageRendering),
  fetched: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
};
document.body.dataset.found = JSON.stringify(found);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    frames = tuple((epoch, render_grid(noise(epoch), epoch)) for epoch in (2, 4, 6))
    privacy = {"verdict": "FLAG", "reasons": ["3 copies"], "limits": "No proof."}
    metrics = {"value": 1.0, "low": 0.5, "high": 1.5}
    names = ("kid", "frechet", "coverage", "recall", "swd", "diversity")
    compared = {
        "against": "holdout",
        "slices": 20,
        "metrics": {name: {**metrics, "floor": metrics} for name in names},
    }
    stored = Stored(
        frames=frames, privacy=privacy, closest=REAL, evaluation={"compared": [compared]}
    )
    content = content_of(rows_of(6), stored=stored, uri="s3://bucket/" + "a-long-name/" * 12)
    folder = tmp_path_factory.mktemp("report")
    text = render_report(content).decode()
    open_store(str(folder)).put(
        "report.html", text.replace("</body>", f"<script>{LOOK}</script></body>").encode()
    )
    return folder / "report.html"


def seen(page, width, *flags):
    """What a browser finds in the page, at a width in pixels."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
    ]
    command += [f"--window-size={width},900", "--dump-dom", *flags, page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    told = re.search(r'data-found="([^"]*)"', dom)[1].replace("&quot;", '"')
    return json.loads(told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [500, 1280])
def test_the_report_can_be_read_everywhere(page, width, flags):
    found = seen(page, width, *flags)
    assert found["contrast"] >= 4.5, found["worst"]
    assert found["wide"] <= 0
    assert found["broken"] == 0
    assert found["fetched"] == 0
    assert set(found["exact"]) == {"pixelated"}
    brightness = sum(map(int, re.findall(r"\d+", found["paper"])[:3]))
    assert (brightness < 120) if flags else (brightness > 700)


def test_the_slider_shows_one_epoch_at_a_time(page):
    found = seen(page, 1280)
    assert found["before"] == ["6"]
    assert found["after"] == ["4"]
    assert found["shown"] == "epoch 4"
    assert found["focused"] == "epoch"


def test_a_printed_report_has_its_pictures_and_no_slider(page, tmp_path):
    pdf = tmp_path / "report.pdf"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={pdf}"]
    subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF")
    sizes = re.findall(rb"/Subtype ?/Image\s+/Width (\d+)\s+/Height (\d+)", data)
    grids = {
        (int(width) - 2) // (WIDTH + 2) for width, height in sizes if int(height) == HEIGHT + 4
    }
    # The reals and the generated slices are eight in a row, the slider's frames two, four or six.
    assert grids == {8}
    assert any(int(height) > 500 for _, height in sizes), "no curves"
