from __future__ import annotations

import pickle

import numpy as np
import pytest

from posesyn.errors import InputError
from posesyn.types import ArrayImage, BodyFit, BodyLabels, JointTruth, Person, gender_of, joint_truth

IMAGE = ArrayImage(np.zeros((4, 4, 3), np.uint8))


def test_unknown_joints_are_zero_and_never_nan(rng):
    points = rng.normal(size=(17, 3))
    points[3] = np.nan
    valid = np.arange(17) != 3
    truth = JointTruth(points, valid, "h36m17")
    assert (truth.joints_cam[3] == 0).all() and truth.joints_cam.dtype == np.float32
    with pytest.raises(InputError, match="NaN"):
        JointTruth(points, np.ones(17, bool), "h36m17")
    with pytest.raises(InputError, match="J=17"):
        JointTruth(points[:16], valid[:16], "h36m17")
    assert pickle.loads(pickle.dumps(truth)).skeleton == "h36m17"  # noqa: S301


def test_fits_keep_the_files_frame(rng):
    camera = np.eye(4)
    camera[:3, 3] = (1, 2, 3)
    fit = BodyFit(np.zeros((24, 3)), np.zeros(10), np.zeros(3), "male", "smpl", camera)
    np.testing.assert_allclose(fit.to_camera(np.ones((5, 3))), np.tile([2, 3, 4], (5, 1)))
    assert BodyFit(np.zeros((55, 3)), np.zeros(16), np.zeros(3), model="smplx").world_to_cam.shape == (4, 4)
    for bad in (
        {"pose_rotvec": np.zeros((22, 3))},
        {"model": "star"},
        {"gender": "x"},
        {"transl": np.zeros(2)},
        {"betas": np.full(10, np.nan)},
        {"world_to_cam": np.eye(3)},
    ):
        with pytest.raises(InputError):
            BodyFit(**{"pose_rotvec": np.zeros((24, 3)), "betas": np.zeros(10), "transl": np.zeros(3), **bad})


def test_rendered_persons_bring_their_labels(rng):
    joints = rng.normal(size=(45, 3))
    labels = BodyLabels(np.tile(np.eye(3), (24, 1, 1)), np.zeros(10), np.zeros(3), joints, np.eye(3))
    fields = (IMAGE, np.array([0, 0, 3, 3]), np.zeros((45, 2)), np.ones(45, bool), "smpl45")
    rendered = Person("a", *fields, labels=labels)
    np.testing.assert_allclose(joint_truth(rendered).joints_cam, joints, atol=1e-6)
    assert joint_truth(Person("b", *fields)) is None
    own = JointTruth(np.zeros((17, 3)), np.ones(17, bool), "h36m17")
    assert joint_truth(Person("c", *fields, labels=labels, joints=own)) is own


def test_words_for_gender():
    assert [gender_of(word, "f") for word in ("m", b"f", "neutral", np.str_("male"))] == [
        "male",
        "female",
        "neutral",
        "male",
    ]
    with pytest.raises(InputError, match="unknown gender in a file"):
        gender_of("?", "a file")
