"""Oracles: OpenCV's projection and warping, the formulas of SPIN, HMR2 and CLIFF as a scalar loop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.geometry import cameras


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_project_against_opencv(rng, batch):
    points = rng.normal(size=(*batch, 8, 3)) + np.array([0, 0, 4])
    matrix = np.array([[800.0, 1.5, 320], [0, 780, 240], [0, 0, 1]])
    pixels = cameras.project(torch.from_numpy(points), torch.from_numpy(matrix))
    for i in np.ndindex(*batch):
        plain = np.array([[800.0, 0, 320], [0, 780, 240], [0, 0, 1]])
        expected = cv2.projectPoints(points[i], np.zeros(3), np.zeros(3), plain, None)[0][:, 0]
        expected[:, 0] += 1.5 * points[i][:, 1] / points[i][:, 2]  # skew, which OpenCV does not model
        np.testing.assert_allclose(pixels[i], expected, atol=1e-9)


def test_project_behind_the_camera_is_finite():
    points = torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.2, -1e-9], [0.0, 0.0, -3.0]], requires_grad=True)
    pixels = cameras.project(points, cameras.intrinsics(500.0, 64, 64))
    pixels.sum().backward()
    assert torch.isfinite(pixels).all() and torch.isfinite(points.grad).all()


def test_intrinsics_take_tensors():
    one = cameras.intrinsics(500.0, 640, 480)
    np.testing.assert_allclose(one, [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    many = cameras.intrinsics(torch.tensor([500.0, 600.0]), 640, torch.tensor([480, 240]))
    assert many.shape == (2, 3, 3) and many[1, 1, 2] == 119.5 and many[1, 0, 0] == 600
    assert cameras.intrinsics(torch.ones(2, dtype=torch.float64), 64, 64).dtype == torch.float64


def test_crop_of_the_whole_image_is_the_identity():
    affine = cameras.crop_affine((-0.5, -0.5, 99.5, 49.5), (50, 100), scale=1.0, aspect=2.0)
    np.testing.assert_allclose(affine, [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_crop_keeps_pixel_centres():
    # Halving: crop pixel 0 shows full pixels 0 and 1, its centre lies between theirs.
    affine = cameras.crop_affine((-0.5, -0.5, 7.5, 7.5), 4, scale=1.0)
    np.testing.assert_allclose(cameras.apply_affine(affine, np.array([[0.5, 0.5], [6.5, 6.5]])), [[0, 0], [3, 3]])


def test_crop_by_opencv_moves_the_pixels_where_the_affine_says(rng):
    image = np.zeros((80, 90), np.float32)
    image[33, 47] = 1
    affine = cameras.crop_affine((30, 20, 70, 60), 164, scale=1.0)
    crop = cv2.warpAffine(image, affine, (164, 164), flags=cv2.INTER_LINEAR)
    rows, columns = np.mgrid[:164, :164]
    centroid = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    np.testing.assert_allclose(centroid, cameras.apply_affine(affine, np.array([47.0, 33.0])), atol=0.05)


@pytest.mark.parametrize(
    "box, size, aspect, expected",
    [
        ((10, 20, 50, 100), 224, 1.0, (96.0, 96.0)),  # SPIN: 1.2 · max(w, h)
        ((10, 20, 50, 100), 256, 0.75, (96.0, 96.0)),  # HMR2: to 192:256, then a square
        ((10, 20, 90, 60), 256, 0.75, (128.0, 128.0)),
        ((10, 20, 50, 100), (256, 192), 0.75, (72.0, 96.0)),
    ],
)
def test_padding(box, size, aspect, expected):
    middle, padded = cameras.padded_box(np.array(box), size, 1.2, aspect)
    np.testing.assert_allclose(middle, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    np.testing.assert_allclose(padded, expected)
    height, width = (size, size) if isinstance(size, int) else size
    affine = cameras.crop_affine(box, size, 1.2, aspect)
    corners = np.array([middle - padded / 2, middle + padded / 2])
    np.testing.assert_allclose(
        cameras.apply_affine(affine, corners), [[-0.5, -0.5], [width - 0.5, height - 0.5]], atol=1e-9
    )
    np.testing.assert_allclose(
        cameras.apply_affine(cameras.invert_affine(affine), [[0.0, 0.0]]), [cameras.invert_affine(affine)[:, 2]]
    )
    back = cameras.apply_affine(cameras.invert_affine(affine), cameras.apply_affine(affine, corners))
    np.testing.assert_allclose(back, corners, atol=1e-9)


def test_crop_intrinsics_project_like_the_affine(rng):
    points = torch.from_numpy(rng.normal(size=(9, 3)) + np.array([0, 0, 5]))
    full = cameras.intrinsics(900.0, 640, 480).double()
    affine = cameras.crop_affine((200, 100, 400, 420), 224, rotation=0.4)
    inside = cameras.crop_intrinsics(full.numpy(), affine)
    np.testing.assert_allclose(
        cameras.project(points, torch.from_numpy(inside)),
        cameras.apply_affine(affine, cameras.project(points, full).numpy()),
        atol=1e-9,
    )


def test_rotated_crop_equals_rotated_scene(rng):
    points = torch.from_numpy(rng.normal(size=(9, 3)) + np.array([0, 0, 5]))
    full = cameras.intrinsics(900.0, 640, 480).double()
    box = (119.5, 39.5, 519.5, 439.5)  # around the principal point
    turned = cameras.apply_affine(cameras.crop_affine(box, 224, rotation=0.7), cameras.project(points, full).numpy())
    scene = points @ cameras.in_plane_rotation(torch.tensor(0.7, dtype=torch.float64)).T
    upright = cameras.apply_affine(cameras.crop_affine(box, 224), cameras.project(scene, full).numpy())
    np.testing.assert_allclose(turned, upright, atol=1e-9)
    assert cameras.in_plane_rotation(torch.zeros(3, 2)).shape == (3, 2, 3, 3)


@pytest.mark.parametrize("focal, size", [(5000.0, 224), (5000.0, 256), (1000.0, 256)])
def test_weak_perspective(focal, size):
    cam = torch.tensor([[0.9, 0.1, -0.2], [0.0, 0.0, 0.0]])
    moved = cameras.weak_perspective_to_translation(cam, focal, size)
    assert moved[0].tolist() == pytest.approx([0.1, -0.2, 2 * focal / (size * 0.9 + 1e-9)])
    assert torch.isfinite(moved).all()


def test_crop_to_full_is_the_official_formula(rng):
    cam = np.stack((rng.uniform(0.5, 1.2, 3), *rng.normal(size=(2, 3)) * 0.1), axis=1)
    center, size = rng.uniform(100, 400, (3, 2)), rng.uniform(80, 300, 3)
    image, focal = np.tile([640.0, 480.0], (3, 1)), np.array([5000 / 256 * 640] * 3)
    tensors = [torch.from_numpy(a) for a in (cam, center, size, image, focal)]
    official = cameras.crop_to_full_translation(*tensors, principal_point=tensors[3] / 2)
    own = cameras.crop_to_full_translation(*tensors)
    for b in range(3):
        bs = size[b] * cam[b, 0] + 1e-9
        expected = [
            2 * (center[b, 0] - 320) / bs + cam[b, 1],
            2 * (center[b, 1] - 240) / bs + cam[b, 2],
            2 * focal[b] / bs,
        ]
        np.testing.assert_allclose(official[b], expected, rtol=1e-9)
        np.testing.assert_allclose(own[b] - official[b], [1 / bs, 1 / bs, 0], atol=1e-9)
    plain = cameras.crop_to_full_translation(*tensors, offset=False)
    np.testing.assert_allclose(plain[:, :2], cam[:, 1:])
    np.testing.assert_allclose(plain[:, 2], own[:, 2])


def test_full_translation_lands_where_the_crop_says(rng):
    """A point at the body's origin appears in the full image where the crop's weak perspective puts it."""
    cam = torch.tensor([[0.8, 0.15, -0.1]]).double()
    box = np.array([100.0, 80.0, 340.0, 320.0])
    image = torch.tensor([[640.0, 480.0]]).double()
    focal, size = torch.tensor([1200.0]).double(), 224
    middle, side = cameras.padded_box(box, size)
    center, side = torch.from_numpy(middle)[None], torch.tensor([side[0]])
    transl = cameras.crop_to_full_translation(cam, center, side, image, focal)
    pixel = cameras.project(transl[:, None], cameras.intrinsics(focal, 640, 480))[0, 0].numpy()
    in_crop = cameras.apply_affine(cameras.crop_affine(box, size), pixel)
    expected = (size - 1) / 2 + size / 2 * cam[0, 0].numpy() * cam[0, 1:].numpy()
    np.testing.assert_allclose(in_crop, expected, atol=1e-6)


def test_focal_lengths():
    assert cameras.full_image_focal(5000, 256, 640, 480) == pytest.approx(12500)


def test_look_at(rng):
    eye, target = torch.from_numpy(rng.normal(size=(2, 3, 50, 3)))
    rotation, translation = cameras.look_at(eye, target)
    assert rotation.shape == (3, 50, 3, 3)
    np.testing.assert_allclose(torch.linalg.det(rotation), 1, atol=1e-12)
    in_cam = cameras.world_to_cam(torch.stack((eye, target), dim=-2), rotation, translation)
    np.testing.assert_allclose(in_cam[..., 0, :], 0, atol=1e-12)
    np.testing.assert_allclose(in_cam[..., 1, :2], 0, atol=1e-12)
    np.testing.assert_allclose(in_cam[..., 1, 2], (target - eye).norm(dim=-1))
    above = cameras.world_to_cam((target + torch.tensor([0, 0.1, 0]).double())[..., None, :], rotation, translation)
    assert (above[..., 0, 1] < 0).all()  # up in the world is up in the picture, y down
    np.testing.assert_allclose(above[..., 0, 0], 0, atol=1e-12)  # and upright


def test_look_straight_down():
    rotation, translation = cameras.look_at(torch.tensor([1.0, 3.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert torch.isfinite(translation).all()
    side = cameras.look_at(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))[0]
    np.testing.assert_allclose(side, [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=1e-7)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cameras.project(torch.zeros(3, 2), torch.eye(3)),
        lambda: cameras.project(torch.zeros(3, 3), torch.eye(4)),
        lambda: cameras.crop_affine((0, 0, 0, 10), 224),
        lambda: cameras.crop_affine((0, 0, float("nan"), 10), 224),
        lambda: cameras.crop_affine((10, 0, 5, 10), 224),
        lambda: cameras.crop_affine((0, 0, 5, 10), 0),
        lambda: cameras.crop_affine((0, 0, 5, 10), 224, scale=0),
        lambda: cameras.apply_affine(np.eye(3), np.zeros((1, 2))),
        lambda: cameras.weak_perspective_to_translation(torch.zeros(2), 1, 1),
        lambda: cameras.look_at(torch.zeros(3), torch.zeros(3)),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call()
