"""Where pose pairs come from: Human3.6M, 3DHP's npz, BVH, AMASS, clips; 16 and 17 joints; what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from posesyn import skeletons
from posesyn.data.motions.amass import load_motion, save_motion
from posesyn.data.motions.bvh import bvh_to_motion
from posesyn.data.pose_pairs.h36m import CAMERAS, h36m_camera
from posesyn.data.pose_pairs.pairs import SYNTHETIC, PosePairs
from posesyn.data.pose_pairs.sources import (
    h36m_pairs,
    joints_of_motion,
    load_pairs,
    mpi_inf_3dhp_pairs,
    pairs_of_clips,
    pairs_of_joints,
    pairs_of_motions,
    with_synthesised,
)
from posesyn.errors import FileError, InputError
from posesyn.settings.lifters import CameraRig, PosePairSettings
from posesyn.storage.clip_writer import ClipWriter
from posesyn.types import Motion

SIXTEEN_OF_17 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]
RIG = CameraRig(count=2)


@pytest.fixture(scope="module")
def motion() -> Motion:
    """The free body, arms a little down, walking nowhere."""
    rng = np.random.default_rng(0)
    pose = np.zeros((12, 24, 3), np.float32)
    pose[:, 16, 2], pose[:, 17, 2] = -1.0, 1.0
    pose[:, 1:] += rng.normal(0, 0.05, (12, 23, 3))
    return Motion("a walk", pose, np.tile((0.1, 0.95, -0.2), (12, 1)), np.zeros(10), 20.0, subject="S1")


def world_16(motion: Motion) -> np.ndarray:
    return skeletons.convert(joints_of_motion(motion), "humanml3d22", "poseaug16")[0].astype(np.float64)


def lengths(joints: np.ndarray) -> np.ndarray:
    bones = skeletons.get("poseaug16").bones
    return np.stack([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in bones], -1)


def test_motions_seen_by_a_rig_keep_bones_and_project_exactly(motion):
    pairs = pairs_of_motions([motion], RIG)
    assert len(pairs) == 24 and set(pairs.subjects) == {"S1"} and set(pairs.groups) == {"a walk"}
    np.testing.assert_allclose(pairs.lengths, np.tile(lengths(world_16(motion)), (2, 1)), atol=1e-5)
    focal = pairs.cameras[:, None, :2]
    np.testing.assert_allclose(
        pairs.keypoints, focal * pairs.joints_cam[..., :2] / pairs.joints_cam[..., 2:], atol=1e-6
    )
    # Upright in the picture, the person's left on the picture's right or left according to the side it is seen from.
    assert (pairs.joints_cam[:, 9, 1] < pairs.joints_cam[:, 3, 1] - 1).all()
    normal = np.cross(pairs.joints_cam[:, 4] - pairs.joints_cam[:, 1], pairs.joints_cam[:, 7] - pairs.joints_cam[:, 0])
    forward = world_16(motion)[:, 4] - world_16(motion)[:, 1], world_16(motion)[:, 7] - world_16(motion)[:, 0]
    assert np.linalg.norm(normal, axis=-1) == pytest.approx(
        np.tile(np.linalg.norm(np.cross(*forward), axis=-1), 2), abs=1e-5
    )


def test_amass_and_bvh_files(motion, tmp_path, shared):
    save_motion(tmp_path / "S1_walk.npz", motion)
    again = pairs_of_motions([load_motion(tmp_path / "S1_walk.npz")], RIG)
    np.testing.assert_allclose(again.joints_cam, pairs_of_motions([motion], RIG).joints_cam, atol=1e-3)
    from_folder = load_pairs(PosePairSettings("motions", str(tmp_path)))
    assert set(from_folder.subjects) == {"S1"}
    path = shared / "data/cmu/bvh/02_01.bvh.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the data")
    recorded = bvh_to_motion(path)
    seen = pairs_of_motions([recorded], CameraRig(count=1))
    np.testing.assert_allclose(seen.lengths.mean(0), lengths(world_16(recorded)).mean(0), atol=0.02)


def test_human36m_with_distortion_and_both_joint_counts(tmp_path, rng):
    world = {"S1": {"Walking": (rng.normal(0, 0.05, (5, 32, 3)) + _lab_body()).astype("f4")}}
    np.savez_compressed(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(world, object))
    pairs = h36m_pairs(tmp_path / "data_3d_h36m.npz", subjects=("S1",))
    assert len(pairs) == 20 and set(pairs.subjects) == {"S1"}
    for number, name in enumerate(CAMERAS):
        camera, rows = h36m_camera("S1", name), slice(5 * number, 5 * number + 5)
        for cam, flat in zip(pairs.joints_cam[rows], pairs.keypoints[rows]):
            pixels = cv2.projectPoints(
                cam.astype("f8"), np.zeros(3), np.zeros(3), camera.intrinsics, camera.distortion
            )[0][:, 0]
            width, height = camera.size
            np.testing.assert_allclose(flat, pixels / width * 2 - (1, height / width), atol=2e-5)
    # PoseAug's projection with the nine numbers: its tangential term is half of OpenCV's.
    import torch

    from posesyn.synthesis.augmentation.bones import project_normalised

    made = project_normalised(torch.from_numpy(pairs.joints_cam), torch.from_numpy(pairs.cameras))
    np.testing.assert_allclose(made, pairs.keypoints, atol=1e-3)
    seventeen = {"S1": {"Walking": [rng.uniform(300, 700, (5, 17, 2)) for _ in range(4)]}}
    sixteen = {"S1": {"Walking": [view[:, SIXTEEN_OF_17] for view in seventeen["S1"]["Walking"]]}}
    found = []
    for count, pixels in ((17, seventeen), (16, sixteen)):
        path = tmp_path / f"data_2d_h36m_{count}.npz"
        layout = np.array({"layout_name": "h36m", "num_joints": count}, object)
        np.savez_compressed(path, positions_2d=np.array(pixels, object), metadata=layout)
        found.append(h36m_pairs(tmp_path / "data_3d_h36m.npz", path).keypoints)
    np.testing.assert_array_equal(*found)
    assert len(h36m_pairs(tmp_path / "data_3d_h36m.npz", stride=2)) == 12
    with pytest.raises(InputError, match="no such subjects"):
        h36m_pairs(tmp_path / "data_3d_h36m.npz", subjects=("S9",))


def _lab_body() -> np.ndarray:
    """32 joints of a standing person, z up, millimetre-free."""
    body = np.zeros((32, 3))
    body[:, 2] = 1.0
    names = skeletons.get("h36m32")
    for child, parent in enumerate(names.parents):
        if parent >= 0:
            body[child] = body[parent] + (0.01, 0.02, -0.42 if child in (2, 3, 7, 8) else 0.15)
    return body


@pytest.mark.parametrize("count", (16, 17))
def test_3dhp_npz(tmp_path, motion, count):
    pairs = pairs_of_motions([motion], RIG)
    joints, flat = pairs.joints_cam, pairs.keypoints
    if count == 17:  # Neck/Nose goes in at 9 and out again
        joints, flat = (np.insert(x, 9, x[:, 9], 1) for x in (joints, flat))
    np.savez(tmp_path / "test_3dhp.npz", pose3d=joints, pose2d=flat)
    found = mpi_inf_3dhp_pairs(tmp_path / "test_3dhp.npz")
    assert found.cameras is None
    np.testing.assert_allclose(found.joints_cam, pairs.centred, atol=1e-6)
    np.testing.assert_array_equal(found.keypoints, flat[:, SIXTEEN_OF_17] if count == 17 else flat)
    assert len(load_pairs(PosePairSettings("3dhp", str(tmp_path / "test_3dhp.npz"), stride=3))) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda x, y: {"pose3d": x * 1000, "pose2d": y}, "millimetres"),
        (lambda x, y: {"pose3d": x[:, :14], "pose2d": y[:, :14]}, "16 or 17"),
        (lambda x, y: {"pose3d": x[:0], "pose2d": y[:0]}, "no poses"),
        (lambda x, y: {"pose3d": np.where(x == x[0, 3, 0], np.nan, x), "pose2d": y}, "NaN"),
        (lambda x, y: {"pose3d": x, "pose2d": y[:3]}, "do not fit"),
        (lambda x, y: {"poses": x}, "not test_3dhp"),
    ),
)
def test_bad_3dhp_files(tmp_path, motion, change, message):
    pairs = pairs_of_motions([motion], RIG)
    np.savez(tmp_path / "bad.npz", **change(pairs.joints_cam, pairs.keypoints))
    with pytest.raises(InputError, match=message):
        mpi_inf_3dhp_pairs(tmp_path / "bad.npz")


def test_joint_sets_and_units_of_sequences(motion):
    joints = world_16(motion)
    seen = pairs_of_joints([(joints, "poseaug16", "g", "s")], RIG)
    seventeen = np.insert(joints, 9, joints[:, 9], 1)
    np.testing.assert_allclose(
        pairs_of_joints([(seventeen, "h36m17", "g", "s")], RIG).joints_cam, seen.joints_cam, atol=1e-6
    )
    for wrong, skeleton, message in (
        (joints[:, :14], "lsp14", "lacks joints"),
        (joints * 1000, "poseaug16", "millimetres"),
        (joints[:0], "poseaug16", "at least one frame"),
        (np.full_like(joints, np.nan), "poseaug16", "finite"),
    ):
        with pytest.raises(InputError, match=message):
            pairs_of_joints([(wrong, skeleton, "g", "s")], RIG)
    with pytest.raises(InputError, match="picture of any camera"):
        pairs_of_joints([(joints, "poseaug16", "g", "s")], CameraRig(aim=(30.0, 30.0)))
    with pytest.raises(InputError, match="picture of any camera"):
        pairs_of_joints([], RIG)


def test_clips_in_memory_and_in_a_folder(make_clip, tmp_path, motion):
    keep = np.array([True, False, True, True, False])
    clips = [_human(make_clip(f"clip-{k}", seed=k, keep=keep, motion_id=f"m{k}"), motion) for k in range(2)]
    pairs = pairs_of_clips(clips)
    assert len(pairs) == 6 and sorted(set(pairs.groups)) == ["m0", "m1"] and set(pairs.subjects) == {SYNTHETIC}
    size = clips[0].frames.shape[2]
    pixels = skeletons.convert(clips[0].keypoints_px[keep], "smpl45", "poseaug16")[0]
    np.testing.assert_allclose(pairs.keypoints[:3], (pixels + 0.5) / size * 2 - 1, atol=1e-4)
    with ClipWriter(tmp_path / "clips", plan=[clip.clip_id for clip in clips], config={}) as writer:
        for clip in clips:
            writer.write(clip)
    np.testing.assert_allclose(pairs_of_clips(tmp_path / "clips").joints_cam, pairs.joints_cam, atol=2e-3)
    assert len(load_pairs(PosePairSettings("clips", str(tmp_path / "clips")))) == 6
    with pytest.raises(FileError):
        pairs_of_clips(tmp_path / "none")


def _human(clip, motion):
    from dataclasses import replace

    joints = np.zeros((5, 45, 3), np.float32)
    joints[:, :22] = joints_of_motion(motion)[:5] * (1, -1, -1) + np.array([0, 0.9, 4.0])
    pixels = joints @ clip.intrinsics.T
    pixels = np.where(joints[..., 2:] > 0, pixels[..., :2] / np.maximum(pixels[..., 2:], 1e-6), 0)
    return replace(clip, joints_cam=joints, keypoints_px=pixels.astype(np.float32))


def test_a_folder_as_amass_has_it(motion, tmp_path):
    """A folder per person, with files beside the motions that are none, at 60 frames per second."""
    fast = motion.resampled(60.0)
    for name in ("ACCAD/Female1/A1 - Stand_poses.npz", "ACCAD/Female1/A2_poses.npz", "ACCAD/Male2/B_1_stageii.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_motion(tmp_path / name, fast)
    np.savez(tmp_path / "ACCAD/Male2/shape.npz", betas=np.zeros(10))
    rig = CameraRig(count=1, heights=(1.0, 1.0))
    with pytest.warns(UserWarning, match="1 npz files"):
        pairs = load_pairs(PosePairSettings("motions", str(tmp_path), rig=rig))
    assert set(pairs.subjects) == {"ACCAD/Female1", "ACCAD/Male2"} and len(set(pairs.groups)) == 3
    assert len(pairs) == 3 * len(motion)
    with pytest.warns(UserWarning):
        some = load_pairs(PosePairSettings("motions", str(tmp_path), subjects=["ACCAD/Male2"], stride=2, rig=rig))
    assert len(some) == (len(motion) + 1) // 2 and set(some.subjects) == {"ACCAD/Male2"}
    with pytest.warns(UserWarning), pytest.raises(InputError, match="these subjects"):
        load_pairs(PosePairSettings("motions", str(tmp_path), subjects=["nobody"]))
    with pytest.raises(InputError, match="stride"):
        PosePairSettings("motions", str(tmp_path), stride=0)


def test_no_split_holds_out_what_posesyn_made(motion):
    recorded = pairs_of_joints(
        [(joints_of_motion(motion), "humanml3d22", f"walk {k}", f"S{k % people}") for people in (2,) for k in range(4)],
        RIG,
    )
    one = recorded.of_subjects(["S0"])
    count = len(recorded)
    made = PosePairs(recorded.joints_cam, recorded.keypoints, recorded.cameras,
                     np.arange(count).astype(str), np.full(count, SYNTHETIC))  # fmt: skip
    for seed in range(5):
        for pairs in (recorded, one):
            train, held = PosePairs.concatenate([pairs, made]).split_by_subject(seed=seed)
            assert SYNTHETIC not in held.subjects and (train.subjects == SYNTHETIC).sum() == count
            assert 0 < len(held) < len(pairs)
        train, held = made.split_by_subject(seed=seed)
        assert len(held) == round(0.2 * count)


def test_recorded_and_synthesised_pairs_together(motion):
    recorded = pairs_of_motions([motion], CameraRig(count=3))
    made = PosePairs(recorded.joints_cam[:20], recorded.keypoints[:20], recorded.cameras[:20], np.full(20, "made"))
    both = with_synthesised(recorded, made, share=0.25)
    assert len(both) == 36 + 12 and (both.groups == "made").sum() == 12 and both.cameras is not None
    assert with_synthesised(recorded, None) is recorded
    with pytest.raises(InputError, match="between"):
        with_synthesised(recorded, made, share=1.0)
