"""AMASS-style npz files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.data.motions.amass import SMPL_PELVIS, load_motion, save_motion
from posesyn.errors import FileError, InputError, UnsafeFileError
from posesyn.types import Motion, ViewRequest

PELVIS = np.array([0.01, -0.2, 0.03])


class Body:
    """A body of which only the pelvis is known."""

    def rest_joints(self, betas):
        return torch.as_tensor(PELVIS, dtype=torch.float32).expand(len(betas), 24, 3)


def made(rng, frames=5, **fields):
    pose, transl = rng.normal(0, 0.5, (frames, 24, 3)), rng.normal(0, 1, (frames, 3))
    joints = rng.normal(size=(frames, 22, 3))
    joints[:, 0] = PELVIS + transl
    return Motion("walk/ü", pose, transl, rng.normal(size=10), 20.0, joints, **fields)


def test_round_trip(tmp_path, rng):
    motion = made(rng, caption='a "person" walks', person_id="coco/1#2", anchor_frame=3, reprojection_error=0.25,
                  meta={"seed": np.int64(4), "ranks": np.arange(2)})  # fmt: skip
    path = tmp_path / "Bewegung ü.npz"
    save_motion(path, motion, body=Body())
    back = load_motion(path, body=Body())
    for name in ("pose_rotvec", "transl_world", "betas", "joints_world"):
        np.testing.assert_allclose(getattr(back, name), getattr(motion, name), atol=1e-5)
    for name in ("motion_id", "caption", "person_id", "anchor_frame", "reprojection_error", "fps"):
        assert getattr(back, name) == getattr(motion, name)
    assert back.meta == {"seed": 4, "ranks": [0, 1]}
    # Without the body, the pelvis is found from the joints and stays where it is.
    save_motion(path, motion)
    np.testing.assert_allclose(load_motion(path, body=Body()).transl_world, motion.transl_world, atol=1e-5)


@pytest.mark.parametrize("layout,width", [("smplh", 156), ("smplx", 165), ("smpl", 72)])
def test_every_layout_comes_back(tmp_path, rng, layout, width):
    motion = made(rng)
    save_motion(tmp_path / "m.npz", motion, body=Body(), layout=layout)
    with np.load(tmp_path / "m.npz") as file:
        assert file["poses"].shape == (5, width) and not file["poses"][:, 72 if width == 72 else 66 :].any()
    back = load_motion(tmp_path / "m.npz", body=Body())
    for name in ("pose_rotvec", "transl_world", "betas", "joints_world"):
        np.testing.assert_allclose(getattr(back, name), getattr(motion, name), atol=1e-5)
    with pytest.raises(InputError, match=r"layout.*smplh"):
        save_motion(tmp_path / "m.npz", motion, layout="smpl+h")


def plain_smplx(body, layout):
    """A model of smplx itself with the shape of ``body``; of SMPL+H the fingers are joints that move nothing."""
    import contextlib
    import io
    from types import SimpleNamespace

    import smplx

    smpl = body.smpl
    fingers = 0 if layout == "smpl" else 28  # besides SMPL's two hands, which are the first fingers of SMPL+H
    parents = [*body.parents[:22], *([20] * 15 + [21] * 15)] if fingers else list(body.parents)
    joints = len(parents)
    weights = np.zeros((body.num_vertices, joints))
    weights[:, :22] = smpl.lbs_weights[:, :22]
    # The hands of a file with at-rest fingers follow the wrists.
    weights[:, 20:22] += smpl.lbs_weights[:, 22:24].numpy() if fingers else 0
    regressor = np.zeros((joints, body.num_vertices))
    regressor[:22] = smpl.J_regressor[:22]
    posedirs = np.zeros((body.num_vertices, 3, 9 * (joints - 1)))
    own = smpl.posedirs.numpy().T.reshape(body.num_vertices, 3, -1)
    posedirs[..., : 9 * 21] = own[..., : 9 * 21]
    if not fingers:
        weights, regressor, posedirs = smpl.lbs_weights.numpy(), smpl.J_regressor.numpy(), own
    data = SimpleNamespace(
        v_template=smpl.v_template.numpy(), shapedirs=smpl.shapedirs.numpy(), posedirs=posedirs, J_regressor=regressor,
        kintree_table=np.stack([np.array(parents), np.arange(joints)]), weights=weights, f=body.faces,
        hands_componentsl=np.eye(45), hands_componentsr=np.eye(45), hands_meanl=np.zeros(45), hands_meanr=np.zeros(45),
    )  # fmt: skip
    options = {"model_path": "", "data_struct": data, "num_betas": 10, "vertex_ids": body.vertex_ids}
    with contextlib.redirect_stdout(io.StringIO()):
        if fingers:
            return smplx.SMPLH(**options, use_pca=False, flat_hand_mean=True)
        return smplx.SMPL(**options)


@pytest.mark.parametrize("layout", ["smplh", "smpl"])
def test_a_plain_smplx_forward_gives_the_same_body(tmp_path, rng, layout):
    """What AMASS users do with a file: slice ``poses``, call smplx. The body must stand where ours does, z up."""
    from posesyn.body import load_body
    from posesyn.geometry.rotations import rotvec_to_matrix

    body = load_body("anny", size="small")
    pose = rng.normal(0, 0.4, (4, 24, 3))
    pose[:, 22:] = 0
    motion = Motion("m", pose, rng.normal(0, 1, (4, 3)), rng.normal(size=10), 20.0)
    save_motion(tmp_path / "m.npz", motion, body=body, layout=layout)
    with torch.no_grad():
        transl, betas = torch.from_numpy(motion.transl_world), torch.from_numpy(motion.betas)[None]
        ours = body(rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec)), betas, transl).vertices.numpy()
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        poses, trans, shape = (torch.from_numpy(file[key]).float() for key in ("poses", "trans", "betas"))
    arguments = {"global_orient": poses[:, :3], "transl": trans, "betas": shape[None, :10].expand(4, -1)}
    if layout == "smpl":
        arguments["body_pose"] = poses[:, 3:72]
    else:
        arguments |= {
            "body_pose": poses[:, 3:66], "left_hand_pose": poses[:, 66:111], "right_hand_pose": poses[:, 111:156]
        }  # fmt: skip
    with torch.no_grad():
        theirs = plain_smplx(body, layout)(**arguments).vertices.numpy()
    # x right, y up, z to the viewer -> x, -z, y
    np.testing.assert_allclose(theirs, ours[..., [0, 2, 1]] * [1, -1, 1], atol=2e-5)


def test_file_is_z_up(tmp_path, rng):
    """Height is the third number in the file, and an upright body has its y axis along z."""
    upright = Motion("m", np.zeros((2, 24, 3)), [[0, 1, 0], [0, 1, 2]], np.zeros(10), 30.0)
    save_motion(tmp_path / "m.npz", upright, body=Body())
    with np.load(tmp_path / "m.npz") as file:
        assert file["poses"].shape == (2, 156) and file["betas"].shape == (16,) and str(file["gender"]) == "neutral"
        assert float(file["mocap_framerate"]) == 30
        root = Rotation.from_rotvec(file["poses"][:, :3]).as_matrix()
        np.testing.assert_allclose(root @ [0, 1, 0], [[0, 0, 1]] * 2, atol=1e-6)
        np.testing.assert_allclose(root @ [0, 0, 1], [[0, -1, 0]] * 2, atol=1e-6)  # AMASS: faces -y
        pelvis = file["trans"] + PELVIS
        np.testing.assert_allclose(pelvis[:, 2], 1 + PELVIS[1], atol=1e-6)
        np.testing.assert_allclose(pelvis[1] - pelvis[0], [0, -2, 0], atol=1e-6)


@pytest.mark.parametrize("numbers,rate", [(156, "mocap_framerate"), (165, "mocap_frame_rate"), (72, "mocap_framerate")])
def test_amass_files(tmp_path, rng, numbers, rate):
    poses, trans = rng.normal(0, 0.3, (7, numbers)), rng.normal(size=(7, 3))
    arrays = {"poses": poses, "trans": trans, "betas": rng.normal(size=16), rate: 120.0, "gender": np.str_("female")}
    np.savez(tmp_path / "amass_poses.npz", **arrays)
    motion = load_motion(tmp_path / "amass_poses.npz", body=Body())
    assert motion.fps == 120 and motion.motion_id == "amass_poses" and len(motion) == 7
    np.testing.assert_allclose(motion.pose_rotvec[:, 1:22], poses[:, 3:66].reshape(7, 21, 3), atol=1e-6)
    if numbers != 72:
        assert not motion.pose_rotvec[:, 22:].any()
    pelvis = trans + SMPL_PELVIS
    np.testing.assert_allclose(
        motion.transl_world + PELVIS, np.stack([pelvis[:, 0], pelvis[:, 2], -pelvis[:, 1]], -1), atol=1e-5
    )
    assert load_motion(tmp_path / "amass_poses.npz", fps=60, up="y").fps == 60


def test_bad_files(tmp_path, rng):
    def saved(**arrays):
        good = {"poses": np.zeros((3, 156)), "trans": np.zeros((3, 3)), "mocap_framerate": 60.0}
        np.savez(tmp_path / "bad.npz", **{k: v for k, v in {**good, **arrays}.items() if v is not None})
        return tmp_path / "bad.npz"

    with pytest.raises(FileError):
        load_motion(tmp_path / "absent.npz")
    with pytest.raises(FileError, match="trans"):
        load_motion(saved(trans=None))
    with pytest.raises(InputError, match="shapes"):
        load_motion(saved(poses=np.zeros((3, 100))))
    with pytest.raises(InputError, match="shapes"):
        load_motion(saved(poses=np.zeros((0, 156)), trans=np.zeros((0, 3))))
    with pytest.raises(InputError, match="finite"):
        load_motion(saved(poses=np.full((3, 156), np.nan)))
    with pytest.raises(InputError, match="frame rate"):
        load_motion(saved(mocap_framerate=None))
    with pytest.raises(InputError, match="frame rate"):
        load_motion(saved(mocap_framerate=-1.0))
    with pytest.raises(FileError, match="posesyn_text"):
        load_motion(saved(posesyn_text=np.str_("{")))
    # The SMPL-X release of AMASS has such arrays beside the poses.
    assert len(load_motion(saved(markers_latent_vids=np.array({"a": 1}, object)))) == 3
    objects = np.empty(1, object)
    np.savez(tmp_path / "pickle.npz", poses=objects, trans=np.zeros((1, 3)))
    with pytest.raises(UnsafeFileError):
        load_motion(tmp_path / "pickle.npz")
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(FileError):
        load_motion(tmp_path / "noise.npz")
    with pytest.raises(InputError, match="meta"):
        save_motion(tmp_path / "m.npz", made(rng, meta={"body": Body()}))


def test_the_view_and_the_subject_are_kept_and_older_files_have_them_in_meta(rng, tmp_path):
    asked = made(rng, view=ViewRequest(0.5, -0.1, (0, 0, 0.1, 0.3)), subject="S1", meta={"seed": 1})
    save_motion(tmp_path / "m.npz", asked)
    back = load_motion(tmp_path / "m.npz")
    assert back.view == asked.view and back.subject == "S1" and back.meta == {"seed": 1}
    save_motion(tmp_path / "old.npz", made(rng, meta={"seed": 1, "camera_yaw": 0.5, "camera_elevation": -0.1}))
    old = load_motion(tmp_path / "old.npz")
    assert old.view == replace(asked.view, truncation=None) and old.meta == {"seed": 1}
    save_motion(tmp_path / "odd.npz", made(rng, meta={"camera_yaw": "left"}))
    with pytest.raises(FileError, match="damaged posesyn_text"):
        load_motion(tmp_path / "odd.npz")
