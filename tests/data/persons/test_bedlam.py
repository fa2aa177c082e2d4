from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from posesyn.data.persons.bedlam import AgoraPersons, BedlamPersons
from posesyn.errors import InputError


def scene(rng, width=165, joints=127, **changes):
    points = np.concatenate((rng.uniform(100, 600, (2, joints, 2)), np.ones((2, joints, 1))), -1)
    points[1, :16, 0] = -50
    extrinsics = np.tile(np.eye(4), (2, 1, 1))
    extrinsics[:, :3, 3] = ((0, 0.1, 5), (1, 0, 7))
    return {
        "imgname": np.array(["seq_000000/seq_000000_0000.png", "seq_000000/seq_000000_0005.png"]),
        "center": np.full((2, 2), 350.0),
        "scale": np.full(2, 3.0),
        "pose_cam": rng.normal(0, 0.2, (2, width)),
        "pose_world": rng.normal(0, 0.2, (2, width)),
        "shape": rng.normal(0, 1, (2, 11)),
        "trans_cam": rng.normal(0, 1, (2, 3)),
        "gtkps": points,
        "cam_int": np.tile(np.array([[1200.0, 0, 640], [0, 1200, 360], [0, 0, 1]]), (2, 1, 1)),
        "cam_ext": extrinsics,
        "gender": np.array(["m", "neutral"]),
        "sub": np.array(["rp_aaron", "rp_anna"]),
        "motion_info": np.array(["a", "b"]),
        **changes,
    }


@pytest.fixture
def write(tmp_path, rng):
    def make(name="scene.npz", reader=BedlamPersons, content=None, options=None, drop=()):
        content = scene(rng) if content is None else content
        (tmp_path / "seq_000000").mkdir(exist_ok=True)
        picture = np.zeros((72, 128, 3), np.uint8)
        picture[:, :9] = 255
        for file in ("seq_000000_0000.png", "seq_000000_0005.png"):
            Image.fromarray(picture).save(tmp_path / "seq_000000" / file)
        np.savez(tmp_path / name, **{key: value for key, value in content.items() if key not in drop})
        return reader(tmp_path / name, tmp_path, **(options or {}))

    return make


def test_smplx_rows(write, rng):
    content = scene(rng)
    persons = write(content=content)
    assert len(persons) == 1 and persons.skipped[0][1].startswith("only ")
    person = persons[0]
    assert person.skeleton == "humanml3d22" and person.visible.all()
    np.testing.assert_allclose(person.keypoints_px, content["gtkps"][0, :22, :2], rtol=1e-5)
    fit = person.fit
    assert fit.model == "smplx" and fit.pose_rotvec.shape == (55, 3) and fit.betas.shape == (11,)
    np.testing.assert_allclose(fit.to_camera(np.zeros(3)), [0, 0.1, 5])
    np.testing.assert_allclose(fit.transl, content["trans_cam"][0], rtol=1e-5)
    assert person.track_id == "bedlam/seq_000000/rp_aaron" and person.fit.transl_known
    assert person.joints is None and person.labels is None
    assert len(write(content=content, options={"min_keypoints": 1})) == 2


def test_smpl_rows(write, rng):
    persons = write(content=scene(rng, width=72), options={"min_keypoints": 1})
    assert persons.skeleton == "smpl24" and persons[0].fit.model == "smpl"


def test_close_ups_are_turned(write):
    upright = write()[0].image.load()
    turned = write("closeup_scene.npz")[0].image.load()
    assert upright.shape == (72, 128, 3) and turned.shape == (128, 72, 3)
    # The bright left edge becomes the top edge.
    assert upright[:, :9].min() == 255 and turned[:9].min() == 255 and turned[9:].max() == 0


def test_agora_without_translation(write, rng):
    persons = write(reader=AgoraPersons, content=scene(rng, kid=np.array([False, True])), drop=("trans_cam",))
    person = persons[0]
    assert person.person_id.startswith("agora/") and not person.fit.transl_known and person.meta["kid"] == "False"
    assert (person.fit.transl == 0).all()


def test_bad_files(write, rng):
    with pytest.raises(InputError, match="not a training file of BEDLAM"):
        write(drop=("gtkps",))
    with pytest.raises(InputError, match="not a training file of AGORA"):
        write(drop=("cam_int",), reader=AgoraPersons)
    with pytest.raises(InputError, match=r"pose_cam has the wrong shape"):
        write(content=scene(rng, width=66))
    with pytest.raises(InputError, match="too few joints"):
        write(content=scene(rng, joints=17))
    millimetres = np.tile(np.array([[35.0, 0, 640], [0, 35, 360], [0, 0, 1]]), (2, 1, 1))
    with pytest.raises(InputError, match=r"focal length is not in pixels.*millimetres"):
        write(content=scene(rng, cam_int=millimetres))
    with pytest.raises(InputError, match="unknown gender"):
        write(content=scene(rng, gender=np.array(["x", "y"])))[0]
