from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from posesyn import skeletons
from posesyn.data import CocoKeypoints
from posesyn.errors import InputError
from posesyn.report import overlays
from posesyn.report.overlays import (
    PREDICTION,
    TRUTH,
    crop_square,
    draw_persons,
    draw_skeleton,
    person_crop_overlay,
    side_view,
)
from posesyn.types import ArrayImage
from tests.factories import make_clip, make_scored

GREY = np.full((120, 160, 3), 128, np.uint8)


def changed(image: np.ndarray, before: np.ndarray = GREY) -> np.ndarray:
    return np.any(image != before, axis=-1)


def one_bone() -> tuple[np.ndarray, np.ndarray]:
    """COCO arrays with only the left elbow (20, 30) and left wrist (100, 80)."""
    points, visible = np.zeros((17, 2)), np.zeros(17, bool)
    points[7], points[9] = (20, 30), (100, 80)
    visible[[7, 9]] = True
    return points, visible


def test_draws_a_bone_where_it_belongs_and_leaves_the_input_alone():
    points, visible = one_bone()
    before = GREY.copy()
    drawn = draw_skeleton(before, points, visible, "coco17", (255, 0, 0))
    assert np.array_equal(before, GREY) and drawn is not before and drawn.dtype == np.uint8
    for t in np.linspace(0, 1, 9):
        x, y = np.round(points[7] * (1 - t) + points[9] * t).astype(int)
        red, green, blue = drawn[y, x].astype(int)
        assert red > 150 and green < 90 and blue < 90
    # Nothing far from the segment changes.
    rows, columns = np.nonzero(changed(drawn))
    direction = (points[9] - points[7]) / np.linalg.norm(points[9] - points[7])
    offsets = np.stack([columns, rows], -1) - points[7]
    distance = np.abs(offsets[:, 0] * direction[1] - offsets[:, 1] * direction[0])
    assert distance.max() < 6


def test_left_and_right_have_different_colours():
    points, visible = one_bone()
    left = draw_skeleton(GREY, points, visible, "coco17")
    flip = list(skeletons.get("coco17").flip)
    right = draw_skeleton(GREY, points[flip], visible[flip], "coco17")
    assert tuple(left[80, 100]) == overlays.LEFT
    assert tuple(right[80, 100]) == overlays.RIGHT


def test_invisible_joints_and_their_bones_are_left_out():
    points, visible = one_bone()
    assert not changed(draw_skeleton(GREY, points, np.zeros(17, bool), "coco17")).any()
    visible[9] = False
    points[9] = np.nan
    drawn = draw_skeleton(GREY, points, visible, "coco17")
    assert changed(drawn)[30, 20] and not changed(drawn)[:, 40:].any()


def test_points_far_outside_do_not_overflow():
    points, visible = one_bone()
    points[9] = (1e12, -1e12)
    drawn = draw_skeleton(GREY, points, visible, "coco17")
    assert drawn.shape == GREY.shape and changed(drawn).any()


@pytest.mark.parametrize("name", sorted(skeletons.SKELETONS))
def test_every_joint_set_can_be_drawn(name, rng):
    joints = len(skeletons.get(name))
    drawn = draw_skeleton(GREY, rng.uniform(10, 110, (joints, 2)), np.ones(joints, bool), name)
    assert changed(drawn).any()


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"J=17.*\(5, 2\)"):
        draw_skeleton(GREY, np.zeros((5, 2)), np.ones(5, bool), "coco17")
    with pytest.raises(InputError, match="RGB"):
        draw_skeleton(GREY[..., 0], np.zeros((17, 2)), np.ones(17, bool), "coco17")
    with pytest.raises(InputError, match="unknown skeleton"):
        draw_skeleton(GREY, np.zeros((17, 2)), np.ones(17, bool), "coco18")


def test_draw_persons_draws_all():
    one = make_scored(0).person
    image = one.image.load()
    none, single = draw_persons(image, []), draw_persons(image, [one])
    assert np.array_equal(none, image) and none is not image
    assert changed(single, image).any()


def test_every_predicted_person_has_a_colour_and_a_number():
    image = np.full((240, 320, 3), 90, np.uint8)
    one, other = make_scored(0), make_scored(1)
    both = replace(
        one.prediction, person_ids=("a", "b"),
        joints_cam=np.concatenate((one.prediction.joints_cam, other.prediction.joints_cam)),
        keypoints_px=np.concatenate((one.prediction.keypoints_px, other.prediction.keypoints_px)),
    )  # fmt: skip
    drawn = overlays.draw_predictions(image, both, [[10, 20, 150, 230], [160, 20, 310, 230]])
    assert drawn.shape == image.shape and (image == 90).all()
    for x, color in ((10, overlays.PERSONS[0]), (160, overlays.PERSONS[1])):
        # The left side of the box, away from its number.
        column = drawn[180:226, x - 1 : x + 2].astype(int)
        assert np.abs(column - np.array(color)).sum(-1).min(1).mean() < 90
    # A box that begins outside the picture is drawn as far as it is seen.
    assert (overlays.draw_predictions(image, both[0], [[-500, -500, 1e6, 1e6]]) != image).any()
    assert (overlays.draw_predictions(image, both[0:0], np.zeros((0, 4))) == image).all()


def test_crop_shows_truth_and_prediction_at_their_places():
    scored = make_scored(0, error=0.3)
    size = 256
    picture = person_crop_overlay(scored, size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    center, side = overlays.crop_region([scored])
    for points, shown, color in (
        (scored.person.keypoints_px, scored.person.visible, TRUTH),
        (scored.prediction.keypoints_px[0], overlays._body_joints("smpl45"), PREDICTION),
    ):
        mapped = (points[shown] - center) * size / side + (size - 1) / 2
        inside = mapped[((mapped > 2) & (mapped < size - 3)).all(-1)]
        near = [
            np.abs(picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int) - color).sum(-1).min()
            for x, y in np.round(inside).astype(int)
        ]
        # The truth is drawn last and hides parts of the prediction.
        assert np.mean(np.array(near) < 60) > (0.95 if color == TRUTH else 0.6)


@pytest.mark.parametrize("size", [(1, 1), (3000, 40), (30, 2500)])
def test_crop_of_odd_images(size):
    scored = make_scored(0, image=ArrayImage(np.zeros((*size, 3), np.uint8)))
    assert person_crop_overlay(scored, 64).shape == (64, 64, 3)


def test_crop_survives_wild_predictions_and_boxes():
    scored = make_scored(0, box_xyxy=np.array([50.0, 50, 50, 50]))
    scored.prediction.keypoints_px[0, 3] = np.nan
    scored.prediction.keypoints_px[0, 4] = 1e9
    assert person_crop_overlay(scored).shape == (256, 256, 3)
    assert overlays.crop_region([scored])[1] < 2000


def test_mask_overlay_changes_the_body_only():
    clip = make_clip(frames=3, size=64)
    tinted = overlays.mask_overlay(clip, 1)
    touched = changed(tinted, clip.frames[1])
    assert touched[clip.mask[1]].mean() > 0.99
    # The outline may reach one pixel beyond the mask.
    grown = binary_dilation(clip.mask[1], np.ones((3, 3)))
    assert not touched[~grown].any()
    with pytest.raises(InputError, match="no such frame"):
        overlays.mask_overlay(clip, 3)


def test_clip_overlay_has_no_fingers():
    clip = make_clip(frames=2, size=96)
    clip.keypoints_px[0, 35:45] = (5, 5)
    assert not changed(overlays.clip_overlay(clip, 0), clip.frames[0])[:10, :10].any()


def test_side_view_puts_far_joints_right():
    joints = np.zeros((24, 3))
    joints[:, 1] = np.linspace(0.8, -0.8, 24)
    near, far = joints.copy(), joints.copy()
    near[20:22, 2], far[20:22, 2] = -0.6, 0.6  # the wrists
    # The picture is centred on the pose, so the upright body stands on the other side of wrists that stick out.
    columns = [np.any(side_view(pose, "smpl24", 96) != 38, axis=-1).sum(0) for pose in (near, far)]
    assert columns[0].argmax() > 55 and columns[1].argmax() < 41


def test_side_view_of_no_pose_is_empty():
    assert (side_view(np.full((24, 3), np.nan), "smpl24", 32) == 38).all()


@pytest.mark.parametrize("person_id", ["coco/000000000785#1", "coco/000000197388#2", "coco/000000197388#6"])
def test_true_joints_lie_on_the_person_in_the_picture_and_in_crops(shared, person_id):
    """The mask was annotated apart from the joints; reader, crop and drawing must all agree with it."""
    folder = shared / "data" / "images" / "coco"
    persons = CocoKeypoints(folder / "annotations.json", folder)
    row = next(row for row, person in enumerate(persons) if person.person_id == person_id)
    person, mask = persons[row], persons.mask(row)
    box = person.box_xyxy.reshape(2, 2)
    canvas = np.repeat(mask[..., None] * np.uint8(255), 3, 2)
    crop, affine = crop_square(canvas, box.mean(0), 1.2 * float(np.ptp(box, axis=0).max()), 256)
    in_crop = person.keypoints_px @ affine[:, :2].T + affine[:, 2]
    for image, points in ((canvas, person.keypoints_px), (crop, in_crop)):
        for joint in np.flatnonzero(person.visible):
            alone = np.arange(17) == joint
            drawn = draw_skeleton(np.zeros_like(image), points, alone, "coco17", (255, 255, 255), thickness=2)
            rows, columns = np.nonzero(drawn[..., 0] > 127)
            assert image[rows.mean().round().astype(int), columns.mean().round().astype(int), 0] > 127
