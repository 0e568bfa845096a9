"""The phantom's anatomy: signed distances in the head's own frame, painted from the air inwards.

The frame's unit is half a head length, x grows to the picture's right and y backwards, so a
larger picture only samples the same head more finely. Edges are one pixel soft, and lines
thinner than a pixel keep their area. It never draws a random number.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


class Head(NamedTuple):
    """One head and the plane it is cut in; lengths in half head lengths, angles in radians."""

    size: float  # half head length, in half heights of the field of view
    right: float  # where its centre lies in the field of view
    back: float
    tilt: float
    width: float  # half width over half length
    egg: float  # how much wider the back is than the front
    level: float  # 0 at the basal ganglia, 1 above the ventricles
    scalp: float
    bone: float
    sulci: int  # primary sulci around the brain
    sulcus_width: float
    cortex: float  # thickness of the grey ribbon
    ventricles: float  # width, relative to a young adult's
    phases: list[float]  # of the sinusoids that make this head differ from every other
    lesion: tuple[float, float, float] | None  # x, y, radius


class Contrast(NamedTuple):
    """The signal of each tissue, 0 to about 1."""

    fat: float
    muscle: float
    bone: float
    marrow: float
    csf: float
    grey: float
    white: float
    nuclei: float
    lesion: float
    oedema: float


def _hypot(a: F32, b: F32) -> F32:
    """``np.hypot`` at a fifth of its time: nothing here comes near overflow."""
    return np.asarray(np.sqrt(a * a + b * b), np.float32)


def _inside(distance: F32, level: float | F32, edge: float) -> F32:
    """Coverage, 0 to 1, of the region where a signed distance is below a level."""
    return np.asarray(np.clip((level - distance) * (1 / edge) + 0.5, 0, 1), np.float32)


def _within(distance: F32, reach: float, edge: float) -> F32:
    """Coverage of a line drawn ``reach`` to both sides: true also when thinner than a pixel."""
    return _inside(distance, reach, edge) - _inside(distance, -reach, edge)


def _over(picture: F32, coverage: F32, value: float | F32) -> None:
    """Paint ``value`` over the picture, in place."""
    picture += coverage * (value - picture)


def _extent(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest box that holds the mask: what lies outside need not be computed."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _capsule(
    x: F32, y: F32, start: tuple[float, float, float], end: tuple[float, float, float]
) -> F32:
    """Signed distance to a stroke from (x, y, radius) to (x, y, radius)."""
    along, down = end[0] - start[0], end[1] - start[1]
    length = along * along + down * down
    x, y = x - start[0], y - start[1]
    t = np.asarray(np.clip(x * (along / length) + y * (down / length), 0, 1), np.float32)
    return _hypot(x - t * along, y - t * down) - (start[2] + t * (end[2] - start[2]))


def _ellipse(x: F32, y: F32, centre: tuple[float, float], radii: tuple[float, float]) -> F32:
    """Signed distance, roughly, to an upright ellipse."""
    norm = _hypot((x - centre[0]) * (1 / radii[0]), (y - centre[1]) * (1 / radii[1]))
    return (norm - 1) * min(radii)


def _soft_min(a: F32, b: F32, reach: float) -> F32:
    """The smaller of two distances, with the crease between them rounded over ``reach``."""
    h = np.maximum(reach - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - h * h * (0.25 / reach), np.float32)


def paint(head: Head, tissue: Contrast, across: F32, down: F32, pixel: float) -> F32:
    """The head without bias or noise, (H, W) float32; ``pixel`` in half head lengths."""
    cos, sin = float(np.cos(head.tilt)) / head.size, float(np.sin(head.tilt)) / head.size
    right, back = across - head.right, down - head.back
    x = np.asarray(np.add.outer(-sin * back, cos * right), np.float32)
    y = np.asarray(np.add.outer(cos * back, sin * right), np.float32)
    phase = head.phases
    u = x / (y * (head.width * head.egg) + head.width)
    theta = np.arctan2(u, -y)  # 0 at the forehead
    bumps = 0.012 * np.sin(3 * theta + phase[0]) - 0.014 * np.cos(4 * theta)
    radius = _hypot(x, y) + 1e-6
    outside = radius - radius / ((_hypot(u, y) + 1e-6) * (1 - bumps))

    ends = np.cos(2 * theta)  # 1 at the forehead and the back, -1 at the temples
    scalp = head.scalp * (1 - 0.15 * ends + 0.15 * np.sin(theta + phase[1]))
    bone = head.bone * (1 + 0.22 * ends)
    picture = tissue.fat * _inside(outside, 0.0, pixel)
    if head.level < 0.5:
        temple = np.clip(-1.2 * ends - 0.4 - head.level, 0, 1)
        _over(picture, temple * _inside(outside, -0.5 * scalp, pixel), tissue.muscle)
    table = outside + scalp
    _over(picture, _inside(table, 0.0, pixel), tissue.bone)
    _over(picture, _within(table + 0.5 * bone, 0.13 * head.bone, pixel), tissue.marrow)
    dura = table + bone
    _over(picture, _inside(dura, 0.0, pixel), tissue.csf)
    box = _extent(dura < pixel)
    brain = dura[box] + (0.012 + 0.5 * head.sulcus_width)
    inner = _brain(head, tissue, x[box], y[box], theta[box], -brain, pixel)
    _over(picture[box], _inside(brain, 0.0, pixel), inner)
    return picture


def _brain(
    head: Head, tissue: Contrast, x: F32, y: F32, theta: F32, depth: F32, pixel: float
) -> F32:
    # No midline is straight and no fold keeps its course.
    x = x + 0.010 * np.sin(5 * y + head.phases[3]) + 0.008 * np.sin(15 * y + head.phases[4])
    folds = _folds(head, x, y, theta, depth)
    grain = np.sin(9 * x + head.phases[5]) * np.sin(8 * y + head.phases[6])
    picture = np.asarray(tissue.white * (1 + 0.03 * grain), np.float32)
    blurred = max(pixel, 0.022)  # grey shades into white
    _over(picture, _within(folds, head.cortex + 0.5 * head.sulcus_width, blurred), tissue.grey)
    _over(picture, _within(folds, 0.5 * head.sulcus_width, pixel), tissue.csf)
    inner = _extent(np.maximum(np.abs(x) - 0.42, np.abs(y) - 0.60) < 0)
    _paint_nuclei(picture[inner], head, tissue, np.abs(x[inner]), y[inner], blurred)
    if head.lesion is not None:
        _paint_lesion(picture, head, tissue, head.lesion, x, y, pixel)
    ventricles = _ventricles(head, np.abs(x[inner]), y[inner])
    _over(picture[inner], _inside(ventricles, 0.0, pixel), tissue.csf)
    return picture


def _folds(head: Head, x: F32, y: F32, theta: F32, depth: F32) -> F32:
    """Distance to the nearest fluid outside the brain: its surface, sulci and fissures."""
    phase, side, low = head.phases, np.abs(x), max(0.6 - head.level, 0.0)
    cycle = 2 * np.pi / head.sulci
    turn = theta * (1 / cycle) + 0.30 * np.sin(2 * theta + phase[7])
    turn += 0.22 * np.sin(5 * theta + phase[8]) + 0.22 * np.sin(12 * depth + 3 * theta + phase[9])
    nearest, between = np.rint(turn), np.floor(turn)
    off = np.abs(turn - nearest)
    room = np.clip(side * 6 - 0.1, 0.2, 1)  # less of it near the fissure and the insula
    if low:
        room *= np.clip(np.abs(y + 0.08) * 4, 0.4, 1)
    # Each sulcus has its own depth; whole numbers of cycles make the last one the first.
    reach = room * (0.20 + 0.09 * np.sin(nearest * (7 * cycle) + phase[10]))
    short = room * (0.09 + 0.04 * np.sin(between * (5 * cycle) + phase[2]))
    spacing = (0.62 - 0.8 * depth) * cycle
    primary = _hypot(off * spacing, np.maximum(depth - reach, 0))
    secondary = _hypot((0.5 - off) * spacing, np.maximum(depth - short, 0))
    folds = _soft_min(np.minimum(primary, secondary), depth, 0.03)

    # Between genu and splenium the hemispheres are joined; above them they are not.
    joined = np.maximum(0.48 - np.abs(y - 0.02) - 2.2 * max(head.level - 0.64, 0.0), 0)
    row = y * 4.6 + 0.3 * np.sin(7 * y + phase[10]) + 0.4 * np.sin(9 * x + phase[11])
    nearest = np.rint(row)
    reach = 0.09 + 0.06 * np.sin(2.4 * nearest + 2 * theta)
    medial = _hypot((row - nearest) * 0.2, np.maximum(side - reach, 0))
    medial += joined + np.maximum(0.14 - depth, 0)
    folds = np.minimum(folds, _soft_min(_hypot(side, joined), medial, 0.03))
    if low:
        bent = side - 0.35 * (y + 0.1) * (y + 0.1) + 0.02 * np.sin(14 * y + phase[12])
        insula = _capsule(bent, y, (0.44, -0.20, 0.0), (0.43, 0.10, 0.0))
        sylvian = _capsule(bent, y + 0.15 * bent, (0.44, -0.02, 0.0), (0.75, -0.02, 0.0))
        folds = np.minimum(folds, np.minimum(insula, sylvian) + max(0.036 - 0.12 * low, 0.0))
    return np.asarray(folds, np.float32)


def _ventricles(head: Head, side: F32, y: F32) -> F32:
    """Signed distance to the lateral ventricles and, low down, the third one."""
    level = head.level
    below_roof = min((0.78 - level) * 4, 1.0)  # near the roof only the bodies are left
    if below_roof <= 0:
        return np.full_like(side, 1.0)
    length, swell = 0.45 + 0.55 * below_roof, head.ventricles * (0.4 + 0.6 * below_roof)
    horn = 0.042 * swell
    body = 0.040 * swell * min(1.0, 2.2 * level) - 0.035 * max(0.0, 1 - 4 * level)
    bent = side - (1.6 - 0.8 * level) * (y + 0.1) * (y + 0.1)
    front, middle = (0.020 + 0.8 * horn, -0.22 * length, horn), (0.018 + 0.9 * body, 0.02, body)
    rear, back = (0.07 - 0.02 * level, 0.22 * length, 0.85 * horn), (0.0, 0.38 * length, 0.5 * horn)
    tip = (0.030 + 0.5 * horn, (-0.36 + 0.06 * level) * length, 0.4 * horn)
    lateral = _soft_min(_capsule(bent, y, tip, front), _capsule(bent, y, front, middle), 0.03)
    lateral = _soft_min(lateral, _capsule(bent, y, middle, rear), 0.03)
    lateral = _soft_min(lateral, _capsule(bent, y, rear, back), 0.03)
    slit = 0.016 * swell - 0.10 * max(level - 0.15, 0.0)
    return np.minimum(lateral, _capsule(side, y, (0.0, -0.06, slit), (0.0, 0.17, slit)))


def _paint_nuclei(
    picture: F32, head: Head, tissue: Contrast, side: F32, y: F32, edge: float
) -> None:
    """Caudate, lentiform nucleus and thalamus, shrinking away as the plane rises."""
    shrink = 0.10 * max(head.level - 0.25, 0.0)
    if shrink > 0.05:
        return
    caudate = _ellipse(side, y, (0.16, -0.23), (0.06, 0.11))
    lentiform = _ellipse(side + 0.25 * y, y, (0.29, -0.06), (0.075, 0.19))
    thalamus = _ellipse(side - 0.2 * y, y, (0.09, 0.08), (0.085, 0.14))
    nuclei = np.minimum(np.minimum(caudate, lentiform), thalamus)
    _over(picture, _inside(nuclei, -shrink, edge), tissue.nuclei)


def _paint_lesion(
    picture: F32,
    head: Head,
    tissue: Contrast,
    lesion: tuple[float, float, float],
    x: F32,
    y: F32,
    pixel: float,
) -> None:
    """A ragged mass with a darker core, in a halo of swelling."""
    x0, y0, radius = lesion
    ragged = np.sin(23 * x + head.phases[12]) + np.sin(19 * y + head.phases[13])
    distance = _hypot(x - x0, y - y0) - radius * (1 + 0.12 * ragged)
    _over(picture, 0.8 * _inside(distance, 0.07, 0.05), tissue.oedema)
    _over(picture, _inside(distance, 0.0, pixel), tissue.lesion)
    _over(picture, _inside(distance, -0.45 * radius, 0.03), 0.6 * tissue.lesion)
