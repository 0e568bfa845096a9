import math

import pytest
import torch
from torch.nn import functional as F

from mrigan.models.augment import Policy, Warp, augment, background_of, draw_warp

SIZE = (32, 41)
NOTHING = Policy(translation=0, scale=0, aspect=0, brightness=0, contrast=0)
EVERYTHING = Policy(flips=True, rotation_degrees=15.0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def heads(count, background=-1.0, dtype=torch.float32):
    """Slices whose outer 8 pixels are air."""
    images = torch.full((count, 1, *SIZE), background, dtype=dtype)
    images[:, :, 8:-8, 8:-8] = torch.rand(count, 1, SIZE[0] - 16, SIZE[1] - 16, dtype=dtype)
    return images


def only(
    count=1, rows=1.0, columns=1.0, down=0.0, right=0.0, contrast=1.0, brightness=0.0, turn=()
):
    placement = torch.tensor([rows, columns, down, right]).expand(count, 4)
    grey = torch.tensor([contrast, brightness]).expand(count, 2)
    return Warp(placement, grey, torch.tensor(turn).expand(count, len(turn)))


def test_at_p_0_everything_is_the_identity_to_the_bit():
    images = torch.randn(5, 1, *SIZE)
    warp = draw_warp(EVERYTHING, 5, SIZE, p=0.0, seed=3)
    assert torch.equal(augment(images, warp), images)
    assert torch.equal(augment(images.double(), warp), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, warp), images)


def test_a_policy_of_nothing_does_nothing_at_p_1():
    images = torch.randn(5, 1, *SIZE)
    assert torch.equal(augment(images, draw_warp(NOTHING, 5, SIZE, p=1.0, seed=3)), images)


def test_a_shift_by_whole_pixels_copies_pixels_and_leaves_background_behind():
    images = heads(2, background=-0.8)
    images[1] += 0.3
    moved = augment(images, only(2, down=3.0, right=-5.0))
    assert torch.equal(moved[:, :, 3:, :-5], images[:, :, :-3, 5:])
    assert torch.equal(moved[:, :, :3], images[:, :, :1].expand(-1, -1, 3, -1))
    assert torch.equal(moved[:, :, :, -5:], images[:, :, :, :1].expand(-1, -1, -1, 5))


def test_background_is_never_grey_while_a_quarter_of_the_border_is_air():
    images = heads(3) + 0.02 * torch.randn(3, 1, *SIZE)
    images[1, :, :, :26] = 0.7  # anatomy on more than half of the border
    images[2, :, 5] = -9.0  # a dark line that hardly touches the border
    assert background_of(images).flatten().tolist() == pytest.approx([-1] * 3, abs=0.05)


def test_placing_equals_bilinear_sampling():
    images = torch.randn(6, 1, *SIZE, dtype=torch.double)
    policy = Policy(brightness=0, contrast=0, flips=True)
    warp = draw_warp(policy, 6, SIZE, p=0.9, seed=1)
    rows, columns, down, right = warp.placement.double().unbind(1)
    assert (columns < 0).any()
    zero = torch.zeros_like(rows)
    theta = torch.stack(
        [
            torch.stack([1 / columns, zero, -right / columns * 2 / SIZE[1]], 1),
            torch.stack([zero, 1 / rows, -down / rows * 2 / SIZE[0]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    background = background_of(images)
    expected = F.grid_sample(images - background, grid, align_corners=False) + background
    torch.testing.assert_close(augment(images, warp), expected)


def test_contrast_keeps_the_background_and_brightness_moves_everything():
    images = heads(1)
    found = augment(images, only(contrast=1.5, brightness=0.25))
    torch.testing.assert_close(found, -1 + 1.5 * (images + 1) + 0.25)


def test_mirroring_is_exact():
    images = torch.randn(2, 1, *SIZE)
    assert torch.equal(augment(images, only(2, columns=-1.0)), images.flip(3))


@pytest.mark.parametrize("degrees", [-15.0, 4.0, 15.0])
def test_a_turn_is_a_rotation_anticlockwise_about_the_centre(degrees):
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in SIZE)
    angle = math.radians(degrees)

    def blob(at_row, at_column):
        distance = (rows[:, None] - at_row) ** 2 + (columns - at_column) ** 2
        return 2 * torch.exp(-distance / 18)[None, None] - 1

    # Rows count downwards, so anticlockwise takes what is on the right up.
    turned = augment(blob(0.0, 10.0), only(turn=(angle,)))
    expected = blob(-10 * math.sin(angle), 10 * math.cos(angle))
    torch.testing.assert_close(turned, expected, atol=0.1, rtol=0)
    assert (turned - blob(0.0, 10.0)).abs().max() > (0.2 if abs(degrees) < 5 else 0.6)


@pytest.mark.parametrize("degrees", [15, -15])
def test_a_turn_loses_nothing_on_its_way(degrees):
    # 79 right and 10 below or above the centre: the first of three shears takes it 80.3 right.
    images = torch.full((1, 1, 41, 161), -1.0)
    images[:, :, 30 if degrees > 0 else 10, 159] = 1.0
    inwards = augment(images, only(turn=(math.radians(degrees),)))
    assert (inwards + 1).sum() == pytest.approx(2, rel=0.01)


def test_rotations_beyond_15_degrees_are_refused():
    with pytest.raises(ValueError, match="0 to 15 allowed"):
        draw_warp(Policy(rotation_degrees=90), 1, SIZE, p=1.0, seed=0)


def test_a_window_is_drawn_from_its_seed_alone():
    state = torch.get_rng_state()
    one, same, other = (draw_warp(EVERYTHING, 9, SIZE, p=0.7, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_cutting_a_window_cuts_its_warp_and_changes_no_image():
    images = torch.randn(7, 1, *SIZE)
    warp = draw_warp(EVERYTHING, 7, SIZE, p=0.7, seed=2)
    parts = [augment(images[a:b], warp.part(a, b)) for a, b in ((0, 3), (3, 5), (5, 7))]
    torch.testing.assert_close(torch.cat(parts), augment(images, warp), rtol=0, atol=1e-6)


def test_each_transformation_happens_to_a_share_p_and_within_its_bounds():
    warp = draw_warp(EVERYTHING, 20_000, SIZE, p=0.3, seed=0)
    rows, columns, down, right = warp.placement.unbind(1)
    contrast, brightness = warp.grey.unbind(1)
    touched = {
        "size": ((rows * columns.abs()).sqrt() - 1).abs() > 1e-6,
        "aspect": (rows / columns.abs() - 1).abs() > 1e-6,
        "shift": (down != 0) | (right != 0),
        "contrast": contrast != 1,
        "brightness": brightness != 0,
        "turn": warp.turn[:, 0] != 0,
    }
    for name, chosen in touched.items():
        # whole-pixel shifts may round to none
        assert chosen.double().mean() == pytest.approx(0.3, abs=0.015), name
    assert (columns < 0).double().mean() == pytest.approx(0.15, abs=0.015)
    size = (rows * columns.abs()).sqrt()
    assert 3 / 4 - 1e-6 <= size.min() < size.max() <= 4 / 3 + 1e-6
    assert 1 / 2 <= contrast.min() < contrast.max() <= 2
    assert down.abs().max() <= SIZE[0] / 8 + 0.5
    assert right.abs().max() <= SIZE[1] / 8 + 0.5
    assert warp.turn.abs().max() <= math.radians(15)
    moved = touched["shift"]
    whole = (down[moved] % 1 == 0) & (right[moved] % 1 == 0)
    assert whole.double().mean() == pytest.approx(0.5, abs=0.03)


def test_augmenting_is_differentiable_twice():
    warp = Warp(*(rows.double() for rows in draw_warp(EVERYTHING, 1, (9, 8), p=1.0, seed=7)))
    inner = torch.randn(1, 1, 5, 4, dtype=torch.double, requires_grad=True)

    def curved(inner):
        return augment(F.pad(inner, (2, 2, 2, 2), value=-1.0), warp).sin()

    assert torch.autograd.gradcheck(curved, inner)
    assert torch.autograd.gradgradcheck(curved, inner)


def test_no_gradient_goes_to_the_pixel_that_sets_the_background():
    images = heads(1).requires_grad_()
    augment(images, only(down=9.0)).sum().backward()
    assert images.grad.max() <= 1
