from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from posesyn.data.persons.spin_bedlam import AgoraPersons, BedlamPersons, SpinPersons
from posesyn.errors import InputError, UnsafeFileError

NAMES = ["S9/S9_Directions_1.54138969_000001.jpg", "S11/S11_Photo.60457274_000006.jpg"]


@pytest.fixture
def dataset(tmp_path, rng, picture):
    def make(drop=(), options=None, **changes):
        for name in NAMES:
            picture(tmp_path / "images" / name)
        part = np.concatenate((rng.uniform(5, 40, (2, 24, 2)), np.ones((2, 24, 1))), -1)
        part[:, 19:, 2] = 0
        space = np.concatenate((rng.normal(0, 0.4, (2, 24, 3)), part[..., 2:]), -1)
        content = {
            "imgname": np.array(NAMES),
            "center": np.array([[30.0, 20], [31, 21]]),
            "scale": np.array([0.24, 0.12]),
            "part": part,
            "S": space,
            "pose": rng.normal(0, 0.2, (2, 72)),
            "shape": rng.normal(0, 1, (2, 10)),
            "has_smpl": np.array([1, 0]),
            "gender": np.array(["m", "f"]),
            **changes,
        }
        np.savez(tmp_path / "h36m.npz", **{key: value for key, value in content.items() if key not in drop})
        return content, SpinPersons(tmp_path / "h36m.npz", tmp_path / "images", **(options or {}))

    return make


def test_rows_as_persons(dataset):
    content, persons = dataset()
    first, second = persons[0], persons[1]
    assert first.skeleton == "spin24" and first.visible.sum() == 19
    # scale · 200 is 1.2 times the longer side of the box.
    np.testing.assert_allclose(first.box_xyxy, [10, 0, 50, 40], atol=1e-4)
    assert not first.box_is_tight, "the file does not say what its boxes were made from"
    np.testing.assert_allclose(first.joints.joints_cam[:19], content["S"][0, :19, :3], atol=1e-6)
    assert not first.joints.absolute and first.joints.valid.sum() == 19
    assert first.subject == "S9" and first.camera == "54138969" and first.frame == 1
    assert first.action == "Directions_1" and first.track_id == "spin/S9_Directions_1.54138969"
    assert first.fit.gender == "male" and second.fit is None, "has_smpl says so"
    assert first.image.load().shape == (48, 64, 3) and len(dataset(options={"stride": 2})[1]) == 1


def test_other_forms(dataset):
    _, objects = dataset(imgname=np.array(NAMES, object), drop=("S", "pose"))
    assert len(objects) == 2 and objects[0].joints is None and objects[0].fit is None
    openpose = np.ones((2, 25, 3)) * 20
    openpose[0, :, 0] += np.arange(25)
    openpose[1, :, 0] += np.arange(25)
    _, persons = dataset(openpose=openpose, options={"keypoints": "openpose"})
    assert persons.skeleton == "op25"
    with pytest.raises(InputError, match="no array 'openpose'"):
        dataset(options={"keypoints": "openpose"})


def test_bad_files_of_spin(dataset):
    with pytest.raises(InputError, match=r"not an npz file in SPIN's form.*imgname, center, scale"):
        dataset(drop=("scale",))
    with pytest.raises(InputError, match=r"part has the wrong shape.*\(2, 24, 3\)"):
        dataset(part=np.zeros((2, 17, 3)))
    with pytest.raises(InputError, match="S has the wrong shape"):
        dataset(S=np.zeros((3, 24, 4)))
    with pytest.raises(UnsafeFileError, match="leaves the image folder"):
        dataset(imgname=np.array(["../a.jpg", NAMES[1]]))
    with pytest.raises(InputError, match=r"is empty"):
        dataset(scale=np.array([0.0, 1.0]))
    _, persons = dataset(scale=np.array([0.0, 1.0]), options={"on_bad": "skip"})
    assert len(persons) == 1 and "is empty" in persons.skipped[0][1]


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
    assert person.skeleton == "humanml3d22" and person.visible.all() and person.box_is_tight
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


def test_bad_files_of_bedlam(write, rng):
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
