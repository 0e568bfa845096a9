"""Axial, brain-like slices made by arithmetic alone, so that a run needs no data to start with.

``draw(index)`` is a pure function: the same index gives the same head at any size and on every
machine (up to a grey level of rounding), whatever the state of the global random generators. It
imitates what a network should learn to draw; it models no patient and measures nothing.
"""

import numpy as np
import numpy.typing as npt

from mrigan.data.phantom_anatomy import F32, Contrast, Head, paint

PHANTOM_VERSION = 1
"""To be raised whenever the pixels of any phantom change: caches are keyed by it."""

SMALLEST_SIDE_PX = 32

_STREAM = 0x6D726967616E  # keeps these streams apart from other users of default_rng([.., index])
_FIELD_HEIGHT, _FIELD_WIDTH = 2.0, 1.6  # the field of view that the default 200x160 covers

_WEIGHTINGS = np.array(
    [  # fat, muscle, bone, marrow, csf, grey, white, nuclei, lesion, oedema
        [0.95, 0.36, 0.05, 0.30, 0.10, 0.42, 0.66, 0.48, 0.88, 0.36],  # T1, with contrast agent
        [0.72, 0.20, 0.04, 0.18, 0.98, 0.58, 0.36, 0.45, 0.72, 0.88],  # T2
        [0.78, 0.26, 0.04, 0.20, 0.10, 0.60, 0.43, 0.53, 0.82, 0.94],  # FLAIR
        [0.90, 0.34, 0.05, 0.22, 0.92, 0.76, 0.52, 0.66, 0.88, 0.94],  # PD
    ]
)


def draw(index: int, height: int = 200, width: int = 160) -> npt.NDArray[np.uint8]:
    """Draw slice number ``index`` of an endless, fixed series; another size shows the same head.

    Args:
        index: 0 or more; no two give the same picture.
        height: H, pixels, 32 or more.
        width: W, pixels, 32 or more. Pixels stay square: the head is centred and scaled to
            the side that is relatively shorter than 5:4.

    Returns:
        (H, W) uint8, 0 to 255, air near 0.

    Raises:
        ValueError: The index is negative or a side is under 32 pixels.
    """
    if index < 0:
        raise ValueError(f"phantom index {index} is negative: count from 0")
    if min(height, width) < SMALLEST_SIDE_PX:
        raise ValueError(f"phantom of {height}x{width} px: sides start at {SMALLEST_SIDE_PX} px")
    rng = np.random.default_rng([_STREAM, index])
    head, contrast = _random_head(rng), _random_contrast(rng)
    pixel = max(_FIELD_HEIGHT / height, _FIELD_WIDTH / width)
    across = ((np.arange(width) - (width - 1) / 2) * pixel).astype(np.float32)
    down = ((np.arange(height) - (height - 1) / 2) * pixel).astype(np.float32)
    signal = paint(head, contrast, across, down, pixel / head.size)
    return _acquire(signal, across, down, rng)


def _random_head(rng: np.random.Generator) -> Head:
    level = float(rng.uniform(0.0, 1.0))
    return Head(
        size=float(rng.uniform(0.85, 0.92)) - 0.12 * max(level - 0.6, 0.0),
        right=float(rng.uniform(-0.025, 0.025)),
        back=float(rng.uniform(-0.025, 0.025)),
        tilt=float(np.clip(rng.normal(0.0, 0.05), -0.12, 0.12)),
        width=float(rng.uniform(0.74, 0.83)),
        egg=float(rng.uniform(0.02, 0.12)),
        level=level,
        scalp=float(rng.uniform(0.048, 0.072)),
        bone=float(rng.uniform(0.052, 0.072)),
        sulci=int(rng.integers(15, 20)),
        sulcus_width=float(rng.uniform(0.010, 0.026)),
        cortex=float(rng.uniform(0.034, 0.044)),
        ventricles=float(rng.uniform(0.75, 1.5)),
        phases=rng.uniform(0.0, 2 * np.pi, 14).tolist(),
        lesion=_random_lesion(rng),
    )


def _random_lesion(rng: np.random.Generator) -> tuple[float, float, float] | None:
    chance, side, x, y, radius = rng.uniform(0.0, 1.0, 5).tolist()
    if chance > 0.15:
        return None
    return (0.18 + 0.22 * x) * (1 if side < 0.5 else -1), -0.4 + 0.8 * y, 0.06 + 0.09 * radius


def _random_contrast(rng: np.random.Generator) -> Contrast:
    # An even mixture of T1 and T2 has no contrast at all, so one weighting always leads.
    mixture = rng.dirichlet([0.5, 0.5, 0.5, 0.5]) * rng.uniform(0.0, 0.2)
    mixture[rng.choice(4, p=[0.4, 0.35, 0.15, 0.1])] += 1 - mixture.sum()
    values = mixture @ _WEIGHTINGS * rng.normal(1.0, 0.04, _WEIGHTINGS.shape[1])
    return Contrast(*(values * rng.uniform(0.85, 1.0)).tolist())


def _acquire(
    signal: F32, across: F32, down: F32, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Receive-coil shading, Rician noise and rounding, with the last random numbers."""
    slopes, bowls = rng.uniform(-0.2, 0.2, 2).tolist(), rng.uniform(0.0, 0.2, 2).tolist()
    sigma = float(rng.uniform(0.006, 0.022))
    shade_x = 0.94 + across * (slopes[0] + bowls[0] * across)
    shade_y = 0.94 + down * (slopes[1] + bowls[1] * down)
    signal *= shade_x
    signal *= shade_y[:, None]
    # |signal + complex Gaussian| by polar coordinates: a third of the time of two Gaussians.
    noise, turn = rng.random((2, *signal.shape), dtype=np.float32)
    noise = np.sqrt(np.log(1 - noise) * (-2 * sigma * sigma))
    square = signal * signal + noise * (2 * signal * np.cos(2 * np.pi * turn) + noise)
    return np.asarray(np.minimum(np.sqrt(np.maximum(square, 0)) * 255 + 0.5, 255), np.uint8)
