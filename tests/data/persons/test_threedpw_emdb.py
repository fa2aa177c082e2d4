from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posesyn.data.persons.threedpw_emdb import Emdb, ThreeDPW
from posesyn.errors import FileError, InputError, UnsafeFileError

FRAMES = 3


def sequence(rng, **changes):
    """A dictionary in the layout of sequenceFiles/test/*.pkl: two persons, three frames."""
    cameras = np.tile(np.eye(4), (FRAMES, 1, 1))
    for frame in range(FRAMES):
        cameras[frame, :3, :3] = Rotation.from_euler("y", 10 * frame, degrees=True).as_matrix()
        cameras[frame, :3, 3] = (0, 0, 4)
    detections = np.zeros((FRAMES, 3, 18))
    detections[:, :2] = rng.uniform(300, 700, (FRAMES, 2, 18))
    detections[:, 2] = 0.9
    detections[:, 2, 5] = 0
    return {
        "sequence": "downtown_arguing_00",
        "betas": [rng.normal(0, 1, 10), rng.normal(0, 1, 10)],
        "poses": [rng.normal(0, 0.3, (FRAMES, 72)) for _ in range(2)],
        "trans": [rng.normal(0, 0.3, (FRAMES, 3)) for _ in range(2)],
        "genders": ["m", "f"],
        "poses2d": [detections, np.concatenate((np.zeros((1, 3, 18)), detections[1:]))],
        "jointPositions": [rng.normal(0, 0.4, (FRAMES, 72)) for _ in range(2)],
        "cam_poses": cameras,
        "cam_intrinsics": np.array([[1961.0, 0, 540], [0, 1969, 960], [0, 0, 1]]),
        "campose_valid": [np.array([1, 0, 1]), np.ones(FRAMES, int)],
        "img_frame_ids": np.arange(FRAMES) * 2,
        "texture_maps": [],
        **changes,
    }


@pytest.fixture
def dataset(tmp_path, rng, picture):
    def make(content=None, protocol=2, missing=(), **options):
        (tmp_path / "test").mkdir(exist_ok=True)
        content = sequence(rng) if content is None else content
        with open(tmp_path / "test" / "downtown_arguing_00.pkl", "wb") as stream:
            pickle.dump(content, stream, protocol)
        for frame in set(range(FRAMES)) - set(missing):
            picture(tmp_path / "imageFiles" / "downtown_arguing_00" / f"image_{frame:05d}.jpg")
        return ThreeDPW(tmp_path / "test", tmp_path / "imageFiles", **options)

    return make


@pytest.mark.parametrize("protocol", [2, 4])
def test_persons_of_a_sequence(dataset, rng, protocol):
    content = sequence(rng)
    persons = dataset(content, protocol)
    assert len(persons) == 5 and persons.skipped == (("3dpw/downtown_arguing_00@00000#1", "no joint is visible"),)
    person = persons[1]
    assert person.person_id == "3dpw/downtown_arguing_00@00001#0" and person.track_id == "3dpw/downtown_arguing_00#0"
    assert person.skeleton == "op18" and not person.visible[5] and person.visible.sum() == 17
    np.testing.assert_allclose(person.keypoints_px, content["poses2d"][0][1, :2].T, atol=1e-3)
    assert person.box_is_tight and person.labels is None and person.valid is False and persons[0].valid is True
    world = content["jointPositions"][0][1].reshape(24, 3)
    camera = content["cam_poses"][1]
    np.testing.assert_allclose(person.joints.joints_cam, world @ camera[:3, :3].T + camera[:3, 3], atol=1e-5)
    assert person.joints.skeleton == "smpl24" and person.joints.intrinsics[0, 0] == 1961
    assert person.fit.gender == "male" and persons[3].fit.gender == "female" and person.fit.model == "smpl"
    np.testing.assert_allclose(person.fit.to_camera(world), person.joints.joints_cam, atol=1e-5)
    assert person.image.load().shape == (48, 64, 3)
    assert len(dataset(content, stride=2)) == 3


class Code:
    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_with_code_is_refused_and_not_run(dataset, rng, capsys):
    with pytest.raises(UnsafeFileError, match="downtown_arguing_00"):
        dataset(sequence(rng, texture_maps=[Code()]))
    assert "ran" not in capsys.readouterr().out


def test_missing_images_are_counted(dataset):
    with pytest.raises(FileError, match=r"1 missing.*image_00002"):
        dataset(missing=[2])
    persons = dataset(missing=[2], on_missing="skip")
    assert sum(reason == "its image is missing" for _, reason in persons.skipped) == 2 and len(persons) == 3


def test_bad_sequences(dataset, rng, tmp_path):
    with pytest.raises(InputError, match="not a sequence of 3DPW"):
        dataset({"poses": 3})
    for change, words in (
        ({"poses": [np.zeros((FRAMES, 69))]}, "poses has the wrong shape"),
        ({"genders": ["m", "robot"]}, "unknown gender"),
        ({"cam_intrinsics": np.diag([1.8, 1.8, 1.0])}, "not in pixels"),
        ({"cam_intrinsics": np.array([[35.0, 0, 540], [0, 35, 960], [0, 0, 1]])}, "not in pixels"),
        ({"sequence": "../up"}, "impossible name"),
        ({"betas": []}, "incomplete"),
    ):
        with pytest.raises(InputError, match=words):
            dataset(sequence(rng, **change))
    with pytest.raises(FileError, match="no sequences"):
        ThreeDPW(tmp_path / "imageFiles", tmp_path / "imageFiles")


WALK = 4


def walk(rng, **changes):
    return {
        "gender": "female",
        "name": "P1_14_outdoor_climb",
        "emdb1": True,
        "emdb2": False,
        "n_frames": WALK,
        "good_frames_mask": np.array([True, False, True, True]),
        "camera": {
            "extrinsics": np.tile(np.eye(4), (WALK, 1, 1)),
            "intrinsics": np.array([[1450.0, 0, 720], [0, 1450, 960], [0, 0, 1]]),
            "width": 1440,
            "height": 1920,
        },
        "smpl": {
            "poses_root": rng.normal(0, 1, (WALK, 3)),
            "poses_body": rng.normal(0, 0.2, (WALK, 69)),
            "trans": rng.normal(0, 1, (WALK, 3)),
            "betas": rng.normal(0, 1, 10),
        },
        "kp2d": rng.uniform(400, 900, (WALK, 24, 2)),
        "bboxes": {"bboxes": np.tile([300.0, 300, 1000, 1000], (WALK, 1)), "invalid_idxs": np.array([3])},
        **changes,
    }


@pytest.fixture
def emdb(tmp_path, rng, picture):
    def make(content=None, **options):
        content = walk(rng) if content is None else content
        folder = tmp_path / "P1" / "14_outdoor_climb"
        for frame in range(WALK):
            picture(folder / "images" / f"{frame:05d}.jpg", (1440, 1920))
        with open(folder / "P1_14_outdoor_climb_data.pkl", "wb") as stream:
            pickle.dump(content, stream)
        return Emdb(tmp_path, **options)

    return make


def test_persons_of_a_walk(emdb, rng):
    content = walk(rng)
    persons = emdb(content)
    assert len(persons) == WALK and persons.skeleton == "smpl24"
    person = persons[1]
    assert person.track_id == "emdb/P1_14_outdoor_climb" and person.valid is False
    np.testing.assert_array_equal(person.box_xyxy, [300, 300, 1000, 1000])
    assert persons[3].box_xyxy[0] != 300, "frames without a box get one around the joints"
    assert persons[3].box_is_tight and not person.box_is_tight
    np.testing.assert_allclose(person.fit.pose_rotvec[0], content["smpl"]["poses_root"][1], atol=1e-6)
    assert person.fit.gender == "female" and person.joints is None and person.image.load().shape == (1920, 1440, 3)
    assert len(emdb(content, subset="emdb1", stride=2)) == 2
    with pytest.raises(InputError, match="emdb2"):
        emdb(content, subset="emdb2")


def test_bad_walks(emdb, rng, tmp_path):
    with pytest.raises(UnsafeFileError):
        emdb(walk(rng, more=Code()))
    with pytest.raises(InputError, match="not a sequence of EMDB"):
        emdb({"name": "x"})
    with pytest.raises(InputError, match="keypoints has the wrong shape"):
        emdb(walk(rng, kp2d=np.zeros((WALK, 17, 2))))
    with pytest.raises(InputError, match="not in pixels"):
        emdb(walk(rng, camera={**walk(rng)["camera"], "intrinsics": np.diag([26.0, 26.0, 1.0])}))
    with pytest.raises(InputError, match="incomplete"):
        emdb(walk(rng, smpl={}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no sequences"):
        Emdb(tmp_path / "empty")
