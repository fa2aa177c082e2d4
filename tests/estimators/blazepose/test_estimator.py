"""What needs no published weights: shapes, batches, gradients, regions, messages, weights on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import posesyn as ps
from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.estimators.blazepose.detector import SIZE as SQUARE
from posesyn.estimators.blazepose.detector import VALUES, DetectorNetwork, anchor_centres
from posesyn.estimators.blazepose.estimator import BlazePose, refine
from posesyn.estimators.blazepose.landmarks import SIZES, LandmarkNetwork
from posesyn.estimators.blazepose.layers import unpacked
from posesyn.estimators.blazepose.regions import Region, detections, letterbox
from posesyn.interfaces import TrainableEstimator
from posesyn.storage.assets import ASSETS
from posesyn.storage.checkpoints import save_weights
from posesyn.types import ArrayImage, Person


def person(number: int = 0, box=(20, 30, 180, 220), rng_seed: int = 0, **changes) -> Person:
    pixels = np.random.default_rng(rng_seed).integers(0, 255, (240, 200, 3), dtype=np.uint8)
    return Person(
        f"p{number}", ArrayImage(pixels), np.array(box), np.full((17, 2), 90.0), np.ones(17), "coco17", **changes
    )


def test_layers_and_sizes_are_those_of_the_files():
    # Layers and weights counted in the original files.
    counts = {"lite": (88, 1_348_464), "full": (96, 3_145_240), "heavy": (198, 13_673_856)}
    for size, (layers, weights) in counts.items():
        network = LandmarkNetwork(SIZES[size])
        assert len(list(network.file_order())) == len(set(network.file_order())) == layers
        assert sum(value.numel() for name, value in network.named_parameters() if name.endswith("weight")) == weights
        assert {f"{name}.weight" for name in network.file_order()} <= dict(network.named_parameters()).keys()
    detector = DetectorNetwork()
    assert len(list(detector.file_order())) == 73


def test_it_is_an_estimator_that_trains(random_lite):
    assert isinstance(random_lite, TrainableEstimator)
    assert random_lite.spec.skeleton == "blazepose33" and random_lite.spec.name == "blazepose_lite"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_persons_do_not_depend_on_their_batch(random_lite, count):
    persons = [person(number, rng_seed=number) for number in range(3)]
    alone = random_lite.predict(persons[count - 1 : count])
    together = random_lite.predict(persons[:count])
    assert together.joints_cam.shape == (count, 33, 3) and together.keypoints_px.shape == (count, 33, 2)
    np.testing.assert_allclose(together.keypoints_px[-1], alone.keypoints_px[0], atol=0.05)
    poses = [joints - joints.mean(0) for joints in (together.joints_cam[-1], alone.joints_cam[0])]
    np.testing.assert_allclose(*poses, atol=2e-3)


def test_joints_project_near_the_keypoints_in_the_persons_camera(random_lite):
    camera = np.array([[300.0, 0, 90], [0, 310, 130], [0, 0, 1]])
    found = random_lite.predict([person(intrinsics=camera), person(1)])
    np.testing.assert_allclose(found.intrinsics[0], camera)
    assert found.intrinsics[1, 0, 2] == pytest.approx((200 - 1) / 2)
    assert (found.joints_cam[..., 2] > 0).all() and np.isfinite(found.joints_cam).all()


def test_unusable_boxes_and_pictures_are_named(random_lite):
    with pytest.raises(InputError, match="p7"):
        random_lite.predict([person(7, box=(500, 500, 600, 600))])
    with pytest.raises(InputError, match=r"wrong shape.*256"):
        random_lite(torch.zeros(1, 3, 224, 224))
    with pytest.raises(InputError, match="unknown size of BlazePose"):
        BlazePose("huge")
    with pytest.raises(InputError, match="unknown search of BlazePose"):
        BlazePose("lite", search="eyes")


@pytest.mark.parametrize("size", ["lite", "heavy"])
def test_gradients_reach_every_layer_that_is_trained(size):
    torch.manual_seed(1)
    estimator = BlazePose(size)
    for name, value in estimator.landmarks.named_parameters():
        torch.nn.init.kaiming_normal_(value) if value.ndim == 4 else torch.nn.init.constant_(value, 0.2)
        value.data *= 0.7 if "depthwise" in name or "pointwise" in name else 1.0
    # Points in the middle of the crop and high maps, so that the refinement has something to read.
    torch.nn.init.constant_(estimator.landmarks.points.bias, 120.0)
    torch.nn.init.constant_(estimator.landmarks.heatmap.bias, 2.0)
    output = estimator(torch.rand(2, 3, 256, 256))
    sum(output[name].square().mean() for name in ("world", "keypoints_norm", "keypoints_px")).backward()
    without = [
        name
        for name, value in estimator.named_parameters()
        if name.startswith("landmarks") and value.requires_grad and not (value.grad is not None and value.grad.any())
    ]
    assert without == []
    frozen = {name.split(".")[0] + "." + name.split(".")[1] for name, value in estimator.named_parameters()
              if not value.requires_grad}  # fmt: skip
    assert {name for name in frozen if name.startswith("landmarks")} == {"landmarks.segmentation", "landmarks.presence"}


def test_a_region_goes_to_the_crop_and_back():
    rng = np.random.default_rng(0)
    region = Region(70.0, 90.0, 120.0, 0.7)
    points = rng.uniform(0, 255, (5, 2))
    there = region.to_image(points)
    back = there @ region.affine[:, :2].T + region.affine[:, 2]
    np.testing.assert_allclose(back, points, atol=1e-9)
    np.testing.assert_allclose(region.to_image(np.array([127.5, 127.5])), (70, 90))


@pytest.mark.parametrize("rim, angle", [((0, -10), 0), ((10, 0), np.pi / 2), ((-10, 0), -np.pi / 2), ((0, 10), np.pi)])
def test_the_rim_point_lies_above_in_the_crop(rim, angle):
    middle = np.array([50.0, 60.0])
    region = Region.of_points(middle, middle + rim)
    assert region.angle == pytest.approx(angle) and region.side == pytest.approx(25)
    above = region.affine[:, :2] @ (middle + rim) + region.affine[:, 2]
    np.testing.assert_allclose(above, (127.5, 127.5 - 256 / 2.5), atol=1e-9)
    # A joint that is up in the crop is where the rim is in the picture.
    np.testing.assert_allclose(region.world_to_camera(np.array([0, -10.0, 3])), (*rim, 3), atol=1e-9)


def test_refinement_reads_the_peak_beside_the_point():
    heat = torch.full((1, 3, 64, 64), -20.0)
    heat[0, 0, 20, 30] = 5.0
    heat[0, 1, 0, 63] = 5.0
    points = torch.tensor([[[125.0, 79.0], [254.0, 3.0], [40.0, 40.0]]])
    moved = refine(points, heat)
    np.testing.assert_allclose(moved[0, 0], (120, 80), atol=1e-3)
    np.testing.assert_allclose(moved[0, 1], (252, 0), atol=1e-3)  # at the border fewer cells count
    np.testing.assert_allclose(moved[0, 2], (40, 40))  # no peak: it stays
    outside = torch.tensor([[[-30.0, 10.0], [300.0, 10.0], [1e9, 0.0]]])
    np.testing.assert_allclose(refine(outside, heat), outside)


def test_depth_becomes_space_in_the_order_of_tensorflow():
    maps = torch.arange(2 * 8 * 3 * 5).view(2, 8, 3, 5).float()
    wanted = torch.zeros(2, 2, 6, 10)
    for row in range(6):
        for column in range(10):
            for channel in range(2):
                source = ((row % 2) * 2 + column % 2) * 2 + channel
                wanted[:, channel, row, column] = maps[:, source, row // 2, column // 2]
    assert torch.equal(unpacked(maps), wanted)


def test_anchors_are_the_middles_of_the_cells():
    centres = anchor_centres()
    assert centres.shape == (2254, 2)
    np.testing.assert_allclose(centres[[0, 1, 2, 1568, 1960, 1965, 1966]],
                               [(4, 4), (4, 4), (12, 4), (8, 8), (16, 16), (16, 16), (48, 16)])  # fmt: skip


def test_overlapping_detections_become_one():
    scores, boxes = np.full(2254, -9.0), np.zeros((2254, 6, 2))
    for row, (score, x) in enumerate(((2.0, 100), (1.0, 104), (3.0, 180), (-1.0, 30))):
        scores[row] = score
        boxes[row] = [(x, 90), (40, 40), (x, 120), (x, 60), (x, 80), (x, 70)]
    square, affine = letterbox(np.zeros((SQUARE, SQUARE, 3), np.uint8))
    found = detections(scores, boxes, affine)
    assert [round(one.score, 3) for one in found] == [0.953, 0.881]
    first, second = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-1.0))
    middle = (100 * first + 104 * second) / (first + second) - 0.5
    np.testing.assert_allclose(found[1].points[0], (middle, 119.5))
    np.testing.assert_allclose(found[0].box_xyxy, (159.5, 69.5, 199.5, 109.5))
    assert VALUES == 12 and square.shape == (SQUARE, SQUARE, 3)
    region = found[0].region
    assert (region.x, region.y, region.side) == (179.5, 119.5, 150) and region.angle == 0


def test_a_wide_picture_lies_in_the_middle_of_the_square():
    image = np.zeros((100, 400, 3), np.uint8)
    image[:, :, 0] = 200
    square, affine = letterbox(image)
    assert square[:80].max() == 0 and square[-80:].max() == 0 and square[90:130, :, 0].min() == 200
    np.testing.assert_allclose(affine @ (199.5, 49.5, 1), (111.5, 111.5))


def test_without_its_weights_the_message_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path))
    for name in ("blazepose", "blazepose_lite", "blazepose_heavy"):
        with pytest.raises(FileError, match=f"posesyn assets fetch {name}`"):
            ps.load_estimator(name)


def test_weights_come_back_and_other_sizes_are_refused(tmp_path, random_lite):
    path = tmp_path / "weights.safetensors"
    save_weights(path, random_lite.state_dict())
    again = ps.load_estimator("blazepose_lite", checkpoint=path, device="cpu")
    for name, value in again.state_dict().items():
        assert torch.equal(value, random_lite.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="BlazePose"):
        ps.load_estimator("blazepose", checkpoint=path)
    # As the command fetches it: by position.
    numbered = {
        f"{prefix}.{number:03d}.{kind}": random_lite.state_dict()[f"{prefix}.{name}.{kind}"]
        for prefix, network in (("landmarks", random_lite.landmarks), ("detector", random_lite.detector))
        for number, name in enumerate(network.file_order())
        for kind in ("weight", "bias")
    }
    save_weights(path, numbered)
    other = ps.load_estimator("blazepose_lite", checkpoint=path, device="cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in other.state_dict().items())
    assert ASSETS["blazepose_lite"].licence == "Apache-2.0"
