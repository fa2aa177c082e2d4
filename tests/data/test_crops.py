"""Crops against a float64 loop, and labels against re-projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from posesyn import skeletons
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.crops import crop_person, crop_persons, variation_affine
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError
from posesyn.estimators.crowdnet.network import CROWDNET_SPEC
from posesyn.estimators.hmr import SMALL_SPEC, SPIN_SPEC
from posesyn.estimators.hmr2.network import HMR2_SPEC
from posesyn.estimators.hybrik.network import HYBRIK_SPEC
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.images import ImageFile
from posesyn.types import ArrayImage, Person

PLAIN = EstimatorSpec("plain", (32, 32), mean=(0, 0, 0), std=(1, 1, 1), box_scale=1.0)
WILD = CropVariation(True, 0.7, 1.2, (0.05, -0.1))


@pytest.fixture
def person(rng) -> Person:
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([columns * 3, rows * 4, (rows + columns) * 1.5], -1).astype(np.uint8)
    keypoints = rng.uniform((22, 12), (58, 48), (17, 2))
    return Person("p", ArrayImage(image), np.array([20, 10, 60, 50]), keypoints, np.ones(17, bool), "coco17")


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Black outside, as float64."""
    total = np.zeros(3)
    for i in (int(np.floor(y)), int(np.floor(y)) + 1):
        for j in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += (1 - abs(x - j)) * (1 - abs(y - i)) * image[i, j].astype(float)
    return total


@pytest.mark.parametrize("variation", [CropVariation(), WILD])
def test_pixels_equal_a_float64_loop(person, variation):
    crop = crop_person(person, PLAIN, augment=variation)
    affine = np.concatenate((crop.affine, [[0, 0, 1]]))
    image = person.image.load()
    expected = np.zeros((3, 32, 32))
    for v in range(32):
        for u in range(32):
            x, y, _ = np.linalg.solve(affine, [u, v, 1])
            expected[:, v, u] = bilinear(image, x, y) / 255
    # OpenCV interpolates at 1/32 of a pixel.
    assert np.abs(crop.image - expected).max() < 0.05
    assert np.abs(crop.image - expected).mean() < 0.004
    assert crop.image.dtype == np.float32 and crop.image.shape == (3, 32, 32)


def test_a_point_stays_on_its_pixel(person):
    image = np.zeros((60, 80, 3), np.uint8)
    image[30, 40] = 255
    keypoints = np.tile([40.0, 30.0], (17, 1))
    marked = replace(person, image=ArrayImage(image), keypoints_px=keypoints)
    for variation in (CropVariation(), CropVariation(flip=True), CropVariation(rotation=0.5), WILD):
        crop = crop_person(marked, replace(PLAIN, input_size=(128, 128)), augment=variation)
        weights = crop.image[0]
        v, u = np.mgrid[:128, :128]
        centre = np.array([(weights * u).sum(), (weights * v).sum()]) / weights.sum()
        np.testing.assert_allclose(crop.keypoints_px[0], centre, atol=0.1)


def test_normalisation_and_channel_order(person):
    rgb = crop_person(person, replace(PLAIN, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))).image
    bgr = crop_person(person, replace(PLAIN, mean=(0.3, 0.2, 0.1), std=(0.7, 0.6, 0.5), channels="bgr")).image
    np.testing.assert_allclose(rgb[::-1], bgr, atol=1e-6)
    plain = crop_person(person, PLAIN).image
    expected = (plain - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([0.5, 0.6, 0.7])[:, None, None]
    np.testing.assert_allclose(rgb, expected, atol=1e-6)


def test_box_rule_of_the_estimator(person):
    tall = replace(person, box_xyxy=np.array([30, 0, 40, 60]))
    crop = crop_person(tall, replace(PLAIN, input_size=(64, 48), box_scale=1.25, box_aspect=0.75))
    np.testing.assert_allclose(crop.box_center, [35, 30])
    assert crop.box_size == pytest.approx(60 * 0.75 * 1.25) and crop.image.shape == (3, 64, 48)
    np.testing.assert_allclose(crop.affine @ [35, 30, 1], [23.5, 31.5], atol=1e-9)


def with_box(person: Person, box: tuple[float, ...], tight: bool) -> Person:
    image = ArrayImage(np.zeros((300, 400, 3), np.uint8))
    return replace(person, image=image, box_xyxy=np.array(box), box_is_tight=tight)


@pytest.mark.parametrize(
    ("spec", "annotated", "tight"),
    [
        # SPIN, datasets/preprocess: 1.2 times the longer side, of the joints' extent (LSP, 3DPW) and of COCO's boxes.
        (SPIN_SPEC, 240.0, 240.0),
        (SMALL_SPEC, 240.0, 240.0),
        # HMR2 takes boxes of detectors as they are.
        (HMR2_SPEC, 200.0, 240.0),
        (HYBRIK_SPEC, 250.0, 300.0),
        # 3DCrowdNet, get_bbox and process_bbox: joints 1.2, cut at the image, square, 1.25.
        (CROWDNET_SPEC, 250.0, 300.0),
        (EstimatorSpec("mine", box_scale=1.0), 200.0, 240.0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_growth_of_tight_and_of_annotated_boxes(person, spec, annotated, tight):
    box = (150.0, 50.0, 250.0, 250.0)
    for is_tight, side in ((False, annotated), (True, tight)):
        crop = crop_person(with_box(person, box, is_tight), spec)
        assert crop.box_size == pytest.approx(side) and crop.affine[0, 0] == pytest.approx(spec.input_size[1] / side)
        np.testing.assert_allclose(crop.box_center, [200, 150])
        np.testing.assert_allclose(crop_persons([with_box(person, box, is_tight)], spec).box_sizes, [side])


def test_a_tight_box_grows_before_it_is_cut(person):
    # 1.2: y from -20 to 220, cut to -0.5 ... 220; square; 1.25.
    crop = crop_person(with_box(person, (150, 0, 250, 200), True), CROWDNET_SPEC)
    assert crop.box_size == pytest.approx(220.5 * 1.25) and crop.box_center[1] == pytest.approx((220 - 0.5) / 2)


def test_antialias_is_in_inference_and_training_crops(person, rng):
    noise = ArrayImage(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    person = replace(person, image=noise, box_xyxy=np.array([50, 20, 350, 280]))
    for variation in (None, CropVariation(rotation=0.4, flip=True)):
        plain, smooth = (
            crop_person(person, replace(PLAIN, antialias=kind), augment=variation) for kind in (None, "average")
        )
        # Fine noise averages out; the annotation does not change.
        assert smooth.image[:, 8:-8, 8:-8].std() < 0.4 * plain.image[:, 8:-8, 8:-8].std()
        np.testing.assert_array_equal(smooth.keypoints_px, plain.keypoints_px)
        np.testing.assert_array_equal(smooth.affine, plain.affine)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"antialias": "blur"}, "average, gaussian or None.*'blur'"),
        ({"antialias": True}, "unknown antialias"),
        ({"region": "head"}, "unknown region"),
        ({"tight_box_scale": 0.0}, "tight_box_scale must be positive"),
        ({"box_scale": float("nan")}, "box_scale must be positive"),
        ({"box_aspect": -1.0}, "box_aspect must be positive"),
    ],
)
def test_specs_that_make_no_crop(changes, words):
    with pytest.raises(InputError, match=words):
        EstimatorSpec("mine", **changes)


def test_flip_mirrors_pixels_and_swaps_joints(person):
    straight, flipped = crop_person(person, PLAIN), crop_person(person, PLAIN, augment=CropVariation(flip=True))
    np.testing.assert_allclose(flipped.image, straight.image[:, :, ::-1], atol=0.03)
    order = list(skeletons.get("coco17").flip)
    np.testing.assert_allclose(flipped.keypoints_px, straight.keypoints_px[order] * (-1, 1) + (31, 0), atol=1e-4)


def test_invisible_joints_move_with_the_flip(person):
    visible = np.ones(17, bool)
    visible[5] = False  # left shoulder
    crop = crop_person(replace(person, visible=visible), PLAIN, augment=CropVariation(flip=True))
    assert not crop.visible[6] and crop.visible[5] and not crop.inside[6]


@pytest.mark.parametrize(
    "variation",
    [CropVariation(), CropVariation(flip=True), CropVariation(rotation=-0.6), CropVariation(scale=1.3), WILD],
)
def test_labels_project_onto_the_keypoints_of_the_crop(make_clip, variation):
    person = RenderedClips([make_clip()])[1]
    crop = crop_person(person, PLAIN, augment=variation)
    labels = crop.labels
    projected = labels.joints_cam @ labels.intrinsics.T
    projected = projected[:, :2] / projected[:, 2:]
    np.testing.assert_allclose(projected, crop.keypoints_px, atol=2e-3)
    # No skew, equal focal lengths, and the body keeps its size.
    assert abs(labels.intrinsics[0, 1]) < 1e-3 and abs(labels.intrinsics[1, 0]) < 1e-3
    assert labels.intrinsics[0, 0] == pytest.approx(labels.intrinsics[1, 1], rel=1e-5) and labels.intrinsics[0, 0] > 0
    np.testing.assert_allclose(np.linalg.det(labels.pose_rotmat), 1, atol=1e-5)


def test_varied_pose_moves_the_skeleton_as_the_joints(rng):
    """A posed, translated symmetric skeleton: varying the joints equals posing with the varied labels."""
    import torch
    from scipy.spatial.transform import Rotation

    from posesyn.data.crops import vary_labels
    from posesyn.geometry.kinematics import forward_kinematics
    from posesyn.types import BodyLabels

    smpl = skeletons.get("smpl24")
    offsets = rng.normal(0, 0.2, (24, 3))
    mirror = np.diag([-1.0, 1, 1])
    offsets = (offsets + (offsets @ mirror)[list(smpl.flip)]) / 2  # the rest body is symmetric
    pose = Rotation.from_rotvec(rng.normal(0, 0.5, (24, 3))).as_matrix()
    transl = np.array([0.3, -0.2, 4.0])

    def posed(pose_rotmat, translation):
        root = torch.tensor(offsets[0] + translation)[None]
        joints, _ = forward_kinematics(torch.tensor(pose_rotmat)[None], torch.tensor(offsets)[None], smpl.parents, root)
        return joints[0].numpy()

    joints = np.concatenate((posed(pose, transl), np.zeros((21, 3))))
    labels = BodyLabels(pose, np.zeros(10), transl, joints, np.array([[500, 0, 50], [0, 500, 50], [0, 0, 1.0]]))
    for variation in (CropVariation(flip=True), CropVariation(rotation=0.8), WILD):
        affine = variation_affine(np.array([0, 0, 100, 100]), PLAIN, variation)
        varied = vary_labels(labels, affine, variation)
        expected = posed(varied.pose_rotmat.astype(float), varied.transl_cam.astype(float))
        np.testing.assert_allclose(varied.joints_cam[:24], expected, atol=1e-5)


def test_augmentation_is_bounded_seeded_and_needs_a_generator(person):
    rule = CropAugmentation()
    drawn = [rule.sample(np.random.default_rng(seed)) for seed in range(300)]
    assert rule.sample(np.random.default_rng(7)) == drawn[7]
    assert 0.4 < np.mean([v.flip for v in drawn]) < 0.6
    assert max(abs(v.rotation) for v in drawn) <= np.deg2rad(60) + 1e-9
    assert 0.5 < np.mean([v.rotation != 0 for v in drawn]) < 0.7
    assert all(0.75 <= v.scale <= 1.25 and max(map(abs, v.shift)) <= 0.02 for v in drawn)
    assert all(0.8 <= c <= 1.2 for v in drawn for c in v.colour)
    with pytest.raises(InputError, match="random generator"):
        crop_person(person, PLAIN, augment=rule)


def test_colour_is_clipped_at_white(person):
    bright = replace(person, image=ArrayImage(np.full((60, 80, 3), 250, np.uint8)))
    crop = crop_person(bright, PLAIN, augment=CropVariation(colour=(1.2, 1.0, 0.8)))
    np.testing.assert_allclose(crop.image[:, 16, 16], [1, 250 / 255, 200 / 255], atol=1e-5)


def test_batches_equal_single_crops_and_decode_an_image_once(tmp_path, person, monkeypatch):
    Image.fromarray(person.image.load()).save(tmp_path / "a.png")
    persons = [
        replace(person, person_id=f"p{i}", image=ImageFile(tmp_path / "a.png"), box_xyxy=person.box_xyxy + i)
        for i in range(3)
    ]
    loads = []
    original = ImageFile.load
    monkeypatch.setattr(ImageFile, "load", lambda self: loads.append(self) or original(self))
    batch = crop_persons(persons, PLAIN)
    assert len(loads) == 1 and batch.person_ids == ("p0", "p1", "p2")
    for row, one in enumerate(persons):
        crop = crop_person(one, PLAIN)
        np.testing.assert_array_equal(batch.images[row], crop.image)
        np.testing.assert_array_equal(batch.affines[row], crop.affine)
        assert batch.box_sizes[row] == crop.box_size and tuple(batch.image_sizes[row]) == (80, 60)
    with pytest.raises(InputError, match="at least one"):
        crop_persons([], PLAIN)


@pytest.mark.parametrize("box", [(200, 200, 240, 240), (10, 10, 10, 40), (-50, 0, -10, 30)])
def test_boxes_that_show_nothing_are_refused_by_name(person, box):
    with pytest.raises(InputError, match="person 'p'"):
        crop_person(replace(person, box_xyxy=np.array(box)), PLAIN)


def test_a_box_is_cut_at_the_image_where_the_network_wants_it():
    image = ArrayImage(np.zeros((40, 60, 3), np.uint8))
    person = Person("p", image, np.array([-20, 5, 30, 35]), np.zeros((17, 2)), np.zeros(17, bool), "coco17")
    whole = crop_person(person, EstimatorSpec("a", box_scale=1.0))
    cut = crop_person(person, EstimatorSpec("b", box_scale=1.0, box_clip=True))
    np.testing.assert_allclose(whole.box_center, [5, 20])
    np.testing.assert_allclose(cut.box_center, [(30 - 0.5) / 2, 20])
    assert (whole.box_size, cut.box_size) == (50, 30.5)
