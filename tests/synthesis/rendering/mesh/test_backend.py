"""Rendered clips: exact labels, the right way up, the same bytes in every batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.errors import InputError
from posesyn.geometry.devices import device_of
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.synthesis.rendering.mesh.backend import MeshBackend
from posesyn.synthesis.rendering.mesh.rasterizer import rasterize
from posesyn.types import Motion, ViewRequest
from tests.spying_device import SPY, SpyingDevice

NAMES = skeletons.get("smpl45").joints
BETAS = np.linspace(-1, 1, 10).astype(np.float32)


@pytest.fixture(scope="module")
def walking(body) -> Motion:
    return walk(body)


def walk(body, frames: int = 9, travel: float = 0.0) -> Motion:
    """Swinging arms and legs, facing +z, lowest point of each frame on the floor."""
    swing = np.sin(np.linspace(0, 2 * np.pi, frames))
    pose = np.zeros((frames, 24, 3), np.float32)
    pose[:, 16, 2], pose[:, 17, 2] = -1.2, 1.2
    pose[:, 1, 0], pose[:, 2, 0] = -0.4 * swing, 0.4 * swing
    pose[:, 18, 1], pose[:, 19, 1] = -0.4, 0.4
    translation = np.zeros((frames, 3), np.float32)
    translation[:, 2] = np.linspace(0, travel, frames)
    with torch.no_grad():
        vertices = body(rotvec_to_matrix(torch.from_numpy(pose)), torch.from_numpy(BETAS)[None]).vertices
    translation[:, 1] = -vertices[..., 1].amin(1).numpy()
    return Motion("walk", pose, translation, BETAS, fps=20.0, caption="a person walks", view=ViewRequest(0.0))


@pytest.fixture(scope="module")
def clip(body, walking):
    return MeshBackend((128, 96), body).render(walking, seed=3)


@pytest.mark.parametrize(("camera", "travel"), [("fixed", 0.0), ("tracking", 3.0)])
def test_labels_pose_the_body_onto_the_keypoints(body, camera, travel):
    motion = walk(body, travel=travel)
    motion = replace(
        motion, pose_rotvec=motion.pose_rotvec + np.float32([0.3, -0.2, 0.1]) * (np.arange(24) == 0)[:, None]
    )
    clip = MeshBackend((96, 128), body, camera=camera).render(motion, seed=11)
    with torch.no_grad():
        posed = body(
            rotvec_to_matrix(torch.from_numpy(clip.pose_rotvec)),
            torch.from_numpy(clip.betas)[None],
            torch.from_numpy(clip.transl_cam),
        )
    joints = posed.joints.numpy()
    np.testing.assert_allclose(joints, clip.joints_cam, atol=2e-5)
    pixels = joints @ clip.intrinsics.T
    assert np.abs(pixels[..., :2] / pixels[..., 2:] - clip.keypoints_px).max() < 0.05
    # The drawn body is the labelled one: at most cloth and hair lie between the two silhouettes.
    naked = rasterize(posed.vertices, body.faces, torch.from_numpy(clip.intrinsics).expand(len(clip), 3, 3), (96, 128))
    overlap = (naked.mask.numpy() & clip.mask).sum() / naked.mask.numpy().sum()
    assert overlap > 0.97 and clip.mask.sum() < 1.4 * naked.mask.numpy().sum()


def test_clip_carries_everything(clip, walking):
    assert clip.frames.shape == (9, 128, 96, 3) and clip.frames.dtype == np.uint8
    assert clip.mask.dtype == bool and clip.depth.dtype == np.float16 and clip.visible.dtype == bool
    assert ((clip.depth > 0) == clip.mask).all()
    assert clip.fps == 20.0 and clip.caption == walking.caption and clip.motion_id == "walk"
    assert {"appearance", "background", "camera", "seed", "style", "backend"} <= set(clip.meta)


def test_upright_facing_the_camera_and_not_mirrored(clip):
    x, y = clip.keypoints_px[..., 0], clip.keypoints_px[..., 1]
    assert (x[:, NAMES.index("left_shoulder")] > x[:, NAMES.index("right_shoulder")]).all()
    order = [y[:, NAMES.index(name)] for name in ("nose", "pelvis", "left_knee", "left_ankle")]
    assert all((upper < lower).all() for upper, lower in pairwise(order))


def test_mask_and_depth_agree_with_the_joints(clip):
    frames = np.arange(len(clip))
    for name in ("pelvis", "spine2", "neck", "left_knee", "right_knee"):
        joint = NAMES.index(name)
        column, row = np.rint(clip.keypoints_px[:, joint]).astype(int).T
        assert clip.mask[frames, row, column].all()
        gap = clip.joints_cam[:, joint, 2] - clip.depth[frames, row, column].astype(np.float32)
        assert (gap > -0.02).all() and (gap[clip.visible[:, joint]] < 0.28).all()
    seen = clip.visible & (np.arange(45) < 24)
    frame, joint = np.nonzero(seen)
    column, row = np.rint(clip.keypoints_px[frame, joint]).astype(int).T
    inside = clip.mask[frame, row, column]
    gap = clip.joints_cam[frame, joint, 2] - clip.depth[frame, row, column].astype(np.float32)
    assert inside.mean() > 0.95 and np.abs(gap[inside]).max() < 0.3


def test_face_is_visible_from_the_front_and_hidden_from_behind(body, walking):
    backend = MeshBackend((128, 128), body)
    face = [NAMES.index(name) for name in ("nose", "left_eye", "right_eye")]
    front = backend.render(walking, seed=5)
    behind = backend.render(replace(walking, view=ViewRequest(np.pi)), seed=5)
    assert front.visible[:, face].mean() > 0.9
    assert not behind.visible[:, face].any()
    assert behind.visible[:, [NAMES.index("spine2"), NAMES.index("left_knee")]].all()


def test_far_limbs_are_hidden_from_the_side(body):
    standing = walk(body, frames=3)
    standing.pose_rotvec[:, 1:3] = 0
    side = replace(standing, view=ViewRequest(np.pi / 2, 0.0))
    clips = [MeshBackend((160, 160), body, style="lab").render(side, seed=seed) for seed in range(4)]
    hidden = np.concatenate([~clip.visible[:, NAMES.index("right_shoulder")] for clip in clips])
    near = np.concatenate([clip.visible[:, NAMES.index("left_shoulder")] for clip in clips])
    assert hidden.mean() > 0.7 and near.all()


def test_same_bytes_whatever_the_batch(body, walking):
    first, second = (MeshBackend((64, 64), body, frames_per_pass=n).render(walking, seed=9) for n in (1, 7))
    for name in ("frames", "mask", "depth", "visible", "joints_cam", "keypoints_px", "transl_cam", "pose_rotvec"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = MeshBackend((64, 64), body).render(walking, seed=10)
    assert (other.frames != first.frames).any()


def test_supersampling_changes_the_picture_only(body, walking):
    plain, fine = (MeshBackend((64, 64), body, supersample=n).render(walking, seed=9) for n in (1, 2))
    for name in ("mask", "depth", "visible", "keypoints_px"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(fine, name))
    difference = np.abs(plain.frames.astype(int) - fine.frames)
    assert 0 < difference.mean() < 6


def test_silhouette_is_soft_and_person_stands_out(body, walking):
    clip = MeshBackend((128, 128), body, style="lab").render(walking, seed=1)
    inside = clip.frames[clip.mask].astype(float)
    assert inside.std() > 15  # skin, hair, shirt and trousers differ
    assert 25 < inside.mean() < 230


def test_the_camera_follows_a_traveller_and_keeps_it_in_view(body):
    clip = MeshBackend((96, 96), body).render(walk(body, frames=40, travel=5.0), seed=2)
    assert clip.meta["camera"]["tracking"]
    assert (clip.keypoints_px > -1).all() and (clip.keypoints_px < 96).all()
    heights = np.ptp(clip.keypoints_px[..., 1], axis=1)
    assert heights.min() > 30


def test_z_buffer_on_the_body_equals_a_float64_loop(body):
    camera = np.array([[70.0, 0, 15.5], [0, 70.0, 19.5], [0, 0, 1]])
    pose = torch.eye(3).repeat(1, 24, 1, 1)
    pose[:, 0] = rotvec_to_matrix(torch.tensor([[0.4, 0.6, 3.0]]))
    with torch.no_grad():
        vertices = body(pose, torch.zeros(1, 10)).vertices
    vertices = vertices - vertices.mean(1, keepdim=True) + torch.tensor([0.0, 0, 3.6])
    got = rasterize(vertices, body.faces, torch.from_numpy(camera).float()[None], (40, 32))
    a, b, c = (vertices[0].double().numpy()[body.faces[:, i]] for i in range(3))
    normals = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    mismatches = 0
    for y in range(40):
        for x in range(32):
            ray = np.array([(x - 15.5) / 70, (y - 19.5) / 70, 1])
            weights = normals @ ray
            share = weights / weights.sum(0)
            depth = np.where((share >= 0).all(0), (share * np.stack([a, b, c])[..., 2]).sum(0), np.inf)
            nearest = int(depth.argmin())
            sure = np.abs(share[:, depth <= depth.min() + 1e-4]).min(initial=1) > 1e-4
            sure &= np.abs(share.min(0)).min() > 1e-5
            face = int(got.face_index[0, y, x])
            if np.isfinite(depth[nearest]):
                if face >= 0:
                    assert abs(float(got.depth[0, y, x]) - depth[nearest]) < 2e-4
                mismatches += sure and face != nearest
            else:
                mismatches += sure and face >= 0
    assert mismatches == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (8, 8)}, "image_size"),
        ({"style": "studio"}, "style"),
        ({"camera": "drone"}, "camera"),
        ({"supersample": 3}, "settings"),
        ({"frames_per_pass": 0}, "settings"),
    ],
)
def test_bad_settings_are_refused(body, settings, message):
    with pytest.raises(InputError, match=message):
        MeshBackend(body=body, **settings)


def test_draws_on_a_device_as_on_the_cpu(walking):
    for options in ({"style": "lab", "supersample": 2}, {"style": "wild"}):
        expected = MeshBackend((48, 64), device="cpu", **options).render(walking, seed=9)
        with SpyingDevice():
            backend = MeshBackend((48, 64), device=SPY, **options)
            assert device_of(backend.body) == SPY
            found = backend.render(walking, seed=9)
        for name in ("frames", "mask", "depth", "visible", "joints_cam", "keypoints_px", "pose_rotvec", "transl_cam"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_body_of_the_caller_stays_where_it_is():
    body = load_body(size="small")
    with SpyingDevice():
        backend = MeshBackend((32, 32), body, device=SPY)
        assert device_of(backend.body) == SPY and device_of(body) == torch.device("cpu")
        assert MeshBackend((32, 32), body, device="cpu").body is body


@pytest.mark.filterwarnings("ignore:the device's memory is full", "ignore:one item fills")
@pytest.mark.parametrize("fits", [2, 0])
def test_a_full_device_draws_fewer_frames_at_once(walking, monkeypatch, fits):
    expected, draw, sizes = MeshBackend((48, 48), device="cpu").render(walking, seed=9), MeshBackend._draw, []

    def fills(self, stage, vertices, swell, rows):
        if self.device == SPY:
            sizes.append(len(vertices))
            if len(vertices) > fits:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return draw(self, stage, vertices, swell, rows)

    monkeypatch.setattr(MeshBackend, "_draw", fills)
    with SpyingDevice():
        found = MeshBackend((48, 48), device=SPY).render(walking, seed=9)
    assert sizes == ([9, 5, 3, 2, 2, 2, 2, 1] if fits else [9, 5, 3, 2, 1])
    for name in ("frames", "mask", "depth", "visible"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_device_without_64_bit_numbers_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert MeshBackend((32, 32)).device == torch.device("cpu")
    with pytest.raises(InputError, match="64-bit"):
        MeshBackend((32, 32), device="mps")


def test_an_image_that_cuts_the_person_off_has_exact_labels(body, walking):
    backend = MeshBackend((96, 96), body)
    cut = backend.render(replace(walking, view=ViewRequest(0.0, 0.1, (0, 0, 0, 0.4))), seed=5)
    height = backend.image_size[0]
    below = cut.keypoints_px[..., 1] > height - 0.5
    assert 0.1 < below.mean() < 0.6
    assert not cut.visible[below].any() and cut.mask[:, -1].any(1).all() and not cut.mask[:, 0].any()
    projected = cut.joints_cam @ cut.intrinsics.T
    np.testing.assert_allclose(projected[..., :2] / projected[..., 2:], cut.keypoints_px, atol=1e-2)
    assert all(kept.keep.all() for kept in ClipFilter().filter([cut]))
