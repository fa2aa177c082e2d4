"""Looks taken from pictures: render a person with known clothes, take its look back from the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.rendering.appearance.appearance import Appearance, Garment
from posesyn.synthesis.rendering.likeness import likeness
from posesyn.synthesis.rendering.mesh.backend import MeshBackend
from posesyn.types import ArrayImage, Motion, Person, PoseBatch, ScoredPerson, ViewRequest

LOOK = Appearance(
    (224, 172, 130),
    (40, 28, 20),
    "short",
    Garment((40, 90, 200)),
    Garment((190, 60, 40)),
    sleeve=0.6,
    trouser=1.95,
    shoes=(20, 20, 20),
    background=np.full((300, 300, 3), (90, 160, 90), np.uint8),
)


@pytest.fixture(scope="module")
def scored(body) -> ScoredPerson:
    import torch

    pose = np.zeros((1, 24, 3), np.float32)
    pose[:, 16, 2], pose[:, 17, 2] = -1.0, 1.0
    motion = Motion("stand", pose, np.zeros((1, 3)), np.zeros(10), fps=20.0, view=ViewRequest(0.0))
    clip = MeshBackend((256, 256), body, style="lab").render(motion, LOOK, seed=1)
    rows, columns = np.nonzero(clip.mask[0])
    box = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    person = Person("lab/0", ArrayImage(clip.frames[0]), box, clip.keypoints_px[0], clip.visible[0], "smpl45")
    prediction = PoseBatch(
        ("lab/0",),
        "smpl45",
        clip.joints_cam,
        clip.keypoints_px,
        rotvec_to_matrix(torch.from_numpy(clip.pose_rotvec)).numpy(),
        clip.betas[None],
        clip.transl_cam,
        clip.intrinsics[None],
    )
    return ScoredPerson(person, prediction, 0.01, np.zeros(45), np.ones(45, bool))


def test_clothes_and_background_are_taken_over(scored, rng, body):
    look = likeness(scored, rng, body=body)
    assert look.source == "lab/0"
    assert np.argmax(look.top.colour) == 2 and np.argmax(look.bottom.colour) == 0
    assert look.top.colour[2] > 2 * look.top.colour[0]
    assert 0.3 < look.sleeve < 1.0 and look.trouser > 1.8
    red, green, blue = look.skin
    assert red > green > blue and red > 120
    assert max(look.shoes) < 90
    # The person is gone: the place where the shirt was has the colour of the wall.
    x, y = scored.person.keypoints_px[6].astype(int)
    assert np.argmax(look.background[y, x]) == 1
    assert look.background_box is not None


def test_a_plain_person_and_other_joint_sets_work(scored, rng):
    points, present = skeletons.convert(scored.person.keypoints_px, "smpl45", "coco17")
    person = Person("coco/1", scored.person.image, scored.person.box_xyxy, points, present, "coco17")
    look = likeness(person, rng)
    assert np.argmax(look.top.colour) == 2 and look.background is not None


def test_what_cannot_be_seen_is_random_and_noted(scored, rng):
    tiny = replace(scored.person, box_xyxy=np.array([10, 10, 20, 40.0]))
    look = likeness(tiny, rng)
    assert look.source == "random" and look.background is None and "30 px" in " ".join(look.notes)
    legs_only = np.zeros(45, bool)
    legs_only[[4, 5, 7, 8]] = True
    unknown = likeness(replace(scored.person, visible=legs_only), rng)
    assert any("shoulders" in note for note in unknown.notes)
    everything = replace(scored.person, box_xyxy=np.array([0, 0, 256, 256.0]), visible=legs_only)
    covered = likeness(everything, rng)
    assert covered.background is None and any("covers" in note for note in covered.notes)


def test_joints_outside_the_picture_do_no_harm(scored, rng):
    shifted = replace(scored.person, keypoints_px=scored.person.keypoints_px + np.float32([400, -300]))
    look = likeness(shifted, rng)
    assert any("outside the picture" in note for note in look.notes)
