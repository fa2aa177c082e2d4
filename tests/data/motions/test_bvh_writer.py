"""BVH files written, and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from posesyn.data.motions.bvh import bvh_joints, bvh_to_motion, continuous_angles, write_bvh
from posesyn.data.motions.bvh_file import read_bvh
from posesyn.data.motions.bvh_skeletons import SMPL_NAMES, bvh_skeleton
from posesyn.errors import FileError, InputError
from posesyn.types import Motion


def made(rng, frames=30, **fields) -> Motion:
    pose = gaussian_filter1d(rng.normal(size=(frames, 24, 3)), 5, axis=0)
    pose[:, 0] += np.linspace(0, 7, frames)[:, None] * [0.0, 1.0, 0.0]  # more than a whole turn
    transl = np.cumsum(0.02 * rng.normal(size=(frames, 3)), 0) + np.array([0, 1, 0])
    return Motion("turns", pose, transl, rng.normal(size=10), 24.0, **fields)


def posed(body, motion, count=22) -> np.ndarray:
    from posesyn.geometry.rotations import rotvec_to_matrix

    with torch.no_grad():
        rotations = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec))
        return body.joints_only(rotations, torch.from_numpy(motion.betas)[None], torch.from_numpy(motion.transl_world))[
            :, :count
        ].numpy()


def test_the_file_holds_the_bodys_joints(tmp_path, rng, body):
    motion = made(rng)
    write_bvh(tmp_path / "Bewegung ü.bvh", motion, body)
    clip = read_bvh(tmp_path / "Bewegung ü.bvh")
    assert clip.fps == 24 and len(clip) == 30 and clip.metres_per_unit() == 0.01
    own = clip.joints_world()[:, [clip.index(name) for name in SMPL_NAMES]]
    np.testing.assert_allclose(own, posed(body, motion, 24), atol=1e-5)  # hands included
    np.testing.assert_allclose(bvh_skeleton(clip).joints_world(clip), posed(body, motion), atol=1e-5)


def test_other_tools_see_an_upright_person_in_centimetres(tmp_path, body):
    """A reader of its own: names, channels, y up, facing +z, left at +x, feet on the floor."""
    still = Motion("m", np.zeros((3, 24, 3)), np.zeros((3, 3)), np.zeros(10), 20.0)
    write_bvh(tmp_path / "m.bvh", still, body)
    text = (tmp_path / "m.bvh").read_text("ascii")
    lines = text.splitlines()
    assert lines[:5] == ["HIERARCHY", "ROOT Hips", "{", "\tOFFSET 0.000000 0.000000 0.000000",
                         "\tCHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"]  # fmt: skip
    assert text.count("{") == text.count("}") and text.count("End Site") == 5
    assert text.count("CHANNELS 3 Zrotation Yrotation Xrotation") == 23
    assert "Frames: 3" in lines and "Frame Time: 0.05" in lines
    assert all(len(line.split()) == 3 + 3 * 24 for line in lines[-3:])
    clip = read_bvh(tmp_path / "m.bvh")
    joints = {name: clip.joints_world()[0, clip.index(name)] for name in clip.joints}
    assert joints["Head end"][1] > joints["Hips"][1] + 0.5 > joints["LeftToeBase"][1] + 1.0
    assert joints["LeftHand"][0] > 0.4 > -0.4 > joints["RightHand"][0]
    assert joints["LeftToeBase end"][2] > joints["LeftFoot"][2] + 0.1


def test_angles_do_not_jump(tmp_path, rng, body):
    motion = made(rng, 200)
    write_bvh(tmp_path / "m.bvh", motion, body)
    rows = np.array([line.split() for line in (tmp_path / "m.bvh").read_text().splitlines()[-200:]], float)
    assert np.abs(np.diff(rows[:, 3:], axis=0)).max() < 90  # noise near the pole of the middle angle
    angles = rng.uniform(-180, 180, (50, 4, 3))
    angles[..., 1] /= 2
    same = continuous_angles(angles)
    matrices = [Rotation.from_euler("ZYX", a.reshape(-1, 3), degrees=True).as_matrix() for a in (angles, same)]
    np.testing.assert_allclose(*matrices, atol=1e-9)


def test_bones_of_the_joints_are_kept(tmp_path, rng, body):
    """Joints of a person with other bone lengths than the body's."""
    motion = made(rng)
    from posesyn import skeletons

    joints, parents = posed(body, motion), skeletons.get("humanml3d22").parents
    stretched = joints.copy()
    for joint in range(1, 22):
        bone = joints[:, joint] - joints[:, parents[joint]]
        stretched[:, joint] = stretched[:, parents[joint]] + bone * rng.uniform(0.8, 1.2)
    motion = Motion(
        "m", motion.pose_rotvec, motion.transl_world, motion.betas, 24.0, stretched, meta={"scale": 2.0, "lift_m": 0.5}
    )
    errors = {}
    for bones in ("joints", "body"):
        write_bvh(tmp_path / "m.bvh", motion, body, bones=bones)
        clip = read_bvh(tmp_path / "m.bvh", unit_to_m=0.01)
        errors[bones] = np.linalg.norm(bvh_skeleton(clip).joints_world(clip) - stretched, axis=-1).mean()
    assert errors["joints"] < 1e-3 < 0.02 < errors["body"]
    write_bvh(tmp_path / "m.bvh", motion, body, source_size=True)
    clip = read_bvh(tmp_path / "m.bvh", unit_to_m=0.01)
    source = (stretched - [0, 0.5, 0]) / 2
    np.testing.assert_allclose(bvh_skeleton(clip).joints_world(clip), source, atol=2e-3)


@pytest.mark.parametrize("name", ["49_04", "60_10"])  # one of each skeleton of the pack
def test_bvh_to_posesyn_to_bvh_within_15_mm(tmp_path, shared, body, name):
    path = shared / "data" / "cmu" / "bvh" / f"{name}.bvh.gz"
    motion = bvh_to_motion(path, body)
    assert motion.meta["skeleton"] == {"49_04": "cmu31", "60_10": "daz43"}[name]
    write_bvh(tmp_path / "m.bvh", motion, body, source_size=True)
    clip = read_bvh(tmp_path / "m.bvh")
    error = 1000 * np.linalg.norm(bvh_skeleton(clip).joints_world(clip) - bvh_joints(path), axis=-1)
    assert error.mean() < 5 and error.mean(0).max() < 15
    back = bvh_to_motion(tmp_path / "m.bvh", body)
    assert back.meta["skeleton"] == "smpl24" and len(back) == len(motion)
    difference = np.linalg.norm(posed(body, back) - posed(body, motion), axis=-1)
    # The size is found again from the bones, to half a percent.
    assert 1000 * (difference - difference.mean()).std() < 15


def test_bad_input(tmp_path, rng, body):
    with pytest.raises(InputError, match="joints or body"):
        write_bvh(tmp_path / "m.bvh", made(rng), body, bones="own")
    with pytest.raises(FileError):
        write_bvh(tmp_path / "no" / "folder" / "m.bvh", made(rng), body)
    write_bvh(tmp_path / "one.bvh", made(rng, 1), body)
    assert len(read_bvh(tmp_path / "one.bvh")) == 1
