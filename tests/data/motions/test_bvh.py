"""BVH reading, repair and retargeting, on small texts and on the CMU pack."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.data.motions import bvh_file
from posesyn.data.motions.bvh import bvh_joints, bvh_to_motion, clean_pieces
from posesyn.data.motions.bvh_file import read_bvh
from posesyn.data.motions.bvh_skeletons import JOINTS, bvh_skeleton, shortest_arc
from posesyn.errors import FileError, InputError, UnsafeFileError

HEADER = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Leg
  {
    OFFSET 0 -90 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -70 10
    }
  }
}
MOTION
"""
ROWS = "1 100 2 30 20 10 5 15 25\n2 100 2 50 20 10 5 15 65\n"
TEXT = HEADER + "Frames: 2\nFrame Time: 0.0333333\n" + ROWS


def written(tmp_path, text, name="a.bvh"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_forward_kinematics_by_hand(tmp_path):
    clip = read_bvh(written(tmp_path, TEXT))
    assert clip.joints == ("Hips", "Leg", "Leg end") and clip.parents == (-1, 0, 1) and clip.fps == 30
    assert clip.metres_per_unit() == 0.01
    world = clip.joints_world()

    def about(axis, degrees):
        return Rotation.from_rotvec(np.radians(degrees) * np.eye(3)["XYZ".index(axis)]).as_matrix()

    hips = about("Z", 30) @ about("Y", 20) @ about("X", 10)
    leg = about("Z", 5) @ about("X", 15) @ about("Y", 25)
    knee = np.array([1, 100, 2]) + hips @ [0, -90, 0]
    np.testing.assert_allclose(world[0], np.array([[1, 100, 2], knee, knee + hips @ leg @ [0, -70, 10]]) / 100)


def test_gz_crlf_and_unicode_path(tmp_path):
    plain = read_bvh(written(tmp_path, TEXT)).joints_world()
    packed = tmp_path / "Bewegung ü 動.bvh.gz"
    packed.write_bytes(gzip.compress(TEXT.replace("\n", "\r\n").replace("Frames: 2", "Frames:\t2").encode()))
    np.testing.assert_array_equal(read_bvh(packed).joints_world(), plain)


def test_resampling_is_linear_in_position_and_angle(tmp_path):
    rows = "".join(f"{t} 100 0 {10 * t} 0 0 0 0 {170 + 20 * t}\n" for t in range(31))
    clip = read_bvh(written(tmp_path, HEADER + "Frames: 31\nFrame Time: 0.0333333\n" + rows)).resampled(20)
    assert len(clip) == 21 and clip.fps == 20
    np.testing.assert_allclose(clip.root[:, 0], 1.5 * np.arange(21), atol=1e-9)
    expected = Rotation.from_euler("Y", (170 + 30 * np.arange(21))[:, None], degrees=True).as_matrix()
    np.testing.assert_allclose(clip.rotations[:, 1], expected, atol=1e-9)
    assert len(clip.resampled(60)) == 61
    with pytest.raises(InputError, match="fps"):
        clip.resampled(0)


def test_true_rate_and_unit_can_be_given(tmp_path):
    path = written(tmp_path, TEXT)
    clip = read_bvh(path, fps=60, unit_to_m=0.02)
    assert clip.fps == 60 and clip.metres_per_unit() == 0.02
    for bad in ({"fps": 0}, {"fps": float("nan")}, {"unit_to_m": -1}):
        with pytest.raises(InputError, match="positive"):
            read_bvh(path, **bad)
    ant = written(tmp_path, TEXT.replace("-90", "-0.0001").replace("-70 10", "-0.0001 0"))
    with pytest.raises(InputError, match="unit_to_m"):
        read_bvh(ant).joints_world()


def test_offsets_given_as_channels(tmp_path):
    text = TEXT.replace("CHANNELS 3 Z", "CHANNELS 6 Xposition Yposition Zposition Z")
    text = text.replace("10 5 15 25", "10 1 -80 0 5 15 25").replace("10 5 15 65", "10 1 -80 0 5 15 65")
    np.testing.assert_allclose(read_bvh(written(tmp_path, text)).offsets[1], [1, -80, 0])
    with pytest.raises(FileError, match="changes its length"):
        read_bvh(written(tmp_path, text.replace("-80 0 5 15 65", "-40 0 5 15 65")))


@pytest.mark.parametrize(
    "old,new,match",
    [
        ("HIERARCHY", "HIERARCHIE", "line 1.*HIERARCHY"),
        ("OFFSET 0 -90 0", "OFFSET 0 -90", "line 8.*3 finite numbers"),
        ("OFFSET 0 -90 0", "OFFSET 0 x 0", "line 8.*number"),
        ("    OFFSET 0 -90 0\n", "", "no OFFSET"),
        ("CHANNELS 3 Z", "CHANNELS 4 Z", "CHANNELS.*line 9"),
        ("Xrotation Yrotation\n    End", "Xrotation Xrotation\n    End", "CHANNELS.*line 9"),
        ("Frames: 2", "Frames: 0", "no frames.*line 17"),
        ("Frames: 2", "Frames: 3", "3 lines of numbers.*got 2"),
        ("Frames: 2", "Frames: -1", "line 17"),
        ("Frame Time: 0.0333333", "Frame Time: 0", "line 18"),
        ("15 65", "15", "line 20.*9 finite numbers"),
        ("15 65", "15 nan", "line 20"),
        ("15 65", "15 sixty", "not a number.*line 20"),
        ("15 25\n", "15 25 7\n", "line 19.*9 finite numbers"),
        ("JOINT Leg", "JOINT Hips", "name of its own.*line 6"),
        ("JOINT Leg", "ROOT Leg", "line 6.*ROOT"),
        ("}\nMOTION", "MOTION", "unexpected line"),
    ],
)
def test_malformed_files(tmp_path, old, new, match):
    assert old in TEXT
    with pytest.raises(FileError, match=match):
        read_bvh(written(tmp_path, TEXT.replace(old, new)))


def test_truncated_missing_and_empty_files(tmp_path):
    for end in (0, 40, 200, len(HEADER) + 5, len(TEXT) - 30):
        with pytest.raises(FileError):
            read_bvh(written(tmp_path, TEXT[:end]))
    with pytest.raises(FileError, match="no_such"):
        read_bvh(tmp_path / "no_such.bvh")
    packed = gzip.compress(TEXT.encode())
    (tmp_path / "cut.bvh.gz").write_bytes(packed[:-20])
    with pytest.raises(FileError, match="gzip"):
        read_bvh(tmp_path / "cut.bvh.gz")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bvh_file, "MAX_BYTES", 100_000)
    (tmp_path / "bomb.bvh.gz").write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(UnsafeFileError, match="too large"):
        read_bvh(tmp_path / "bomb.bvh.gz")
    deep = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n" + "".join(f"JOINT j{i}\n{{\nOFFSET 0 1 0\n" for i in range(2000))
    with pytest.raises(UnsafeFileError, match="too many joints"):
        read_bvh(written(tmp_path, deep))
    with pytest.raises(FileError, match="wrong number of frames"):  # promises a billion, allocates nothing
        read_bvh(written(tmp_path, TEXT.replace("Frames: 2", "Frames: 1000000000")))


def test_unknown_skeleton(tmp_path):
    with pytest.raises(InputError, match=r"cmu31.*Hips"):
        bvh_to_motion(written(tmp_path, TEXT), body=object())


def test_shortest_arc_never_fails(rng):
    vectors = np.concatenate([rng.normal(size=(50, 3)), np.eye(3), -np.eye(3), np.zeros((1, 3))])
    for target in vectors:
        turned = shortest_arc(vectors, target)
        assert np.isfinite(turned).all()
        np.testing.assert_allclose(np.linalg.det(turned), 1)
        if target.any():
            aimed = np.einsum("nij,nj->ni", turned, vectors)[:-1]
            unit = aimed / np.linalg.norm(aimed, axis=1, keepdims=True)
            np.testing.assert_allclose(unit, np.broadcast_to(target / np.linalg.norm(target), unit.shape), atol=1e-6)


@pytest.fixture(scope="session")
def cmu(shared):
    return shared / "data" / "cmu"


def glitched(cmu, frames, shift):
    """60 frames of walking whose root jumps by ``shift`` metres in ``frames``."""
    clip = read_bvh(cmu / "bvh" / "07_01.bvh.gz").cut(0, 60)
    clip.root[frames] += np.array([0, shift, 0]) / clip.metres_per_unit()
    return clip


def test_single_frame_glitch_is_mended(cmu):
    pieces = clean_pieces(glitched(cmu, [20, 40, 41], 1.0))
    assert len(pieces) == 1 and pieces[0].mended_frames == 3
    error = pieces[0].clip.joints_world() - read_bvh(cmu / "bvh" / "07_01.bvh.gz").cut(0, 60).joints_world()
    assert np.abs(error).max() < 0.05


def test_long_glitch_and_first_frame_are_cut(cmu):
    pieces = clean_pieces(glitched(cmu, [0, *range(30, 40)], 1.0))
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 1), (1, 30), (30, 40), (40, 60)]
    assert len(clean_pieces(glitched(cmu, [], 0))) == 1


def test_known_glitches_of_the_pack(cmu):
    speeds = {}
    for name in ("60_09", "01_07", "60_13"):
        clip = read_bvh(cmu / "bvh" / f"{name}.bvh.gz")
        pieces = clean_pieces(clip)
        longest = max((piece.clip for piece in pieces), key=len)
        joints = bvh_skeleton(clip).joints_world(longest)
        speeds[name] = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * clip.fps
        assert len(longest) > 0.5 * len(clip)
    assert max(speeds.values()) < 13


def test_lost_offsets_are_restored(cmu):
    """The MotionBuilder release, without the neck's offset, gives the body of the exact file within a centimetre."""
    native = read_bvh(cmu / "native" / "05_06_motionbuilder.bvh.gz")
    skeleton = bvh_skeleton(native)
    exact = skeleton.joints_world(read_bvh(cmu / "bvh" / "05_06.bvh.gz"))
    aligned = skeleton.joints_world(skeleton.repaired(native))[1::4]  # frame 0 is a T-pose of the release
    count = min(len(aligned), len(exact)) - 1
    gaps = [np.linalg.norm(aligned[k : k + count] - exact[:count], axis=-1).mean() for k in (0, 1)]
    assert min(gaps) < 0.01
    lost = skeleton.joints_world(native)[1::4]
    assert np.linalg.norm(lost[:count] - exact[:count], axis=-1).mean() > 0.03


def test_native_files(cmu):
    """3ds Max flavour (arms hang at rest), and a header that says 120 fps where it is 60."""
    clip = read_bvh(cmu / "native" / "131_03_3dsmax.bvh.gz")
    assert bvh_skeleton(clip).name == "cmu31-3dsmax"
    rest = bvh_skeleton(clip).rest_points(clip)
    assert rest[JOINTS.index("left_wrist"), 1] < rest[JOINTS.index("left_shoulder"), 1] - 0.3
    native = read_bvh(cmu / "native" / "60_10_daz.bvh.gz", fps=60)
    exact = read_bvh(cmu / "bvh" / "60_10.bvh.gz")
    assert read_bvh(cmu / "native" / "60_10_daz.bvh.gz").fps == 120
    assert len(native) / native.fps == pytest.approx(len(exact) / exact.fps, abs=0.15)


def test_walking_is_upright_forward_and_not_mirrored(cmu):
    joints = bvh_joints(cmu / "bvh" / "07_01.bvh.gz")
    at = {name: joints[:, i].astype(float) for i, name in enumerate(JOINTS)}
    assert (at["head"][:, 1] > at["pelvis"][:, 1] + 0.4).all()
    assert (at["pelvis"][:, 1] > at["left_foot"][:, 1] + 0.5).all()
    assert abs(np.percentile(joints[:, [10, 11], 1], 5)) < 0.08
    path = at["pelvis"][-1] - at["pelvis"][0]
    walking = path * [1, 0, 1] / np.linalg.norm(path[[0, 2]])
    left = (at["left_shoulder"] - at["right_shoulder"]).mean(0)
    assert np.cross(left / np.linalg.norm(left), [0, 1, 0]) @ walking > 0.9  # left x up = ahead
    for side in ("left", "right"):
        assert ((at[f"{side}_foot"] - at[f"{side}_ankle"]).mean(0) @ walking) > 0.05


CMU31_FILES = ("07_01", "16_15", "05_06", "49_04", "135_02", "06_13")
DAZ43_FILES = ("60_09", "61_04", "60_03")


@pytest.mark.integration
@pytest.mark.parametrize("name", CMU31_FILES + DAZ43_FILES)
def test_motion_stays_within_30_mm(cmu, name, record_property):
    from posesyn.body import load_body
    from posesyn.geometry.rotations import rotvec_to_matrix

    body = load_body("anny", size="small")
    motion = bvh_to_motion(cmu / "bvh" / f"{name}.bvh.gz", body, caption="mocap")
    with torch.no_grad():
        joints = body.joints_only(
            rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec)),
            torch.from_numpy(motion.betas).expand(len(motion), 10),
            torch.from_numpy(motion.transl_world),
        )[:, :22].numpy()
    error = 1000 * np.linalg.norm(joints - motion.joints_world, axis=-1).mean()
    record_property("mean_error_mm", float(error))
    print(f"{name} ({motion.meta['skeleton']}): {error:.1f} mm")
    assert error < 30
    # One factor brings the mocap to the body's size; nothing else was done to the source.
    source = bvh_joints(cmu / "bvh" / f"{name}.bvh.gz") * motion.meta["scale"]
    np.testing.assert_allclose(motion.joints_world, source + np.array([0, motion.meta["lift_m"], 0]), atol=1e-4)
    assert 0.9 < motion.meta["scale"] < 1.1 and np.abs(motion.betas).max() < 5
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * motion.fps
    assert speed < 13
    # No knee bends sideways or forwards.
    knees = Rotation.from_rotvec(motion.pose_rotvec[:, [4, 5]].reshape(-1, 3)).as_rotvec()
    bent = np.linalg.norm(knees, axis=1) > 0.5
    assert (knees[bent, 0] / np.linalg.norm(knees[bent], axis=1)).min() > 0.8


@pytest.mark.integration
def test_walking_body_stands_on_the_floor_and_looks_ahead(cmu):
    from posesyn.body import load_body
    from posesyn.geometry.rotations import rotvec_to_matrix

    body = load_body("anny", size="small")
    motion = bvh_to_motion(cmu / "bvh" / "07_01.bvh.gz", body)
    pose = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec))
    with torch.no_grad():
        betas = torch.from_numpy(motion.betas).expand(len(motion), 10)
        out = body(pose, betas, torch.from_numpy(motion.transl_world))
    vertices, joints = out.vertices.numpy(), out.joints.numpy()
    assert np.abs(vertices[..., 1].min(axis=1)).max() < 0.06
    assert (vertices[..., 1].argmax(axis=1) != vertices[..., 1].argmin(axis=1)).all()
    assert (joints[:, 15, 1] > joints[:, 0, 1] + 0.4).all() and (
        joints[:, 0, 1] > joints[:, [7, 8], 1].max(1) + 0.3
    ).all()
    path = (joints[-1, 0] - joints[0, 0]) * [1, 0, 1]
    ahead = pose[:, 0, :, 2].numpy().mean(0)  # the body's z axis
    assert ahead @ path / np.linalg.norm(path) > 0.9
    assert (joints[:, 24] - joints[:, 15]).mean(0) @ path > 0  # the nose leads the head


def test_captions_agree_with_the_files(cmu):
    entries = [json.loads(line) for line in (cmu / "captions.jsonl").read_text().splitlines()]
    for entry in entries[::40]:
        clip = read_bvh(cmu / entry["file"])
        assert (bvh_skeleton(clip).name, len(clip), clip.fps) == (entry["skeleton"], entry["frames"], entry["fps"])
        assert clip.metres_per_unit() == pytest.approx(entry["unit_to_m"])
