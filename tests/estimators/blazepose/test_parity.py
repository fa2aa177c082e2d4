"""The torch networks against the original runtime, on real photographs."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from posesyn.data.persons.lspet import LspExtended
from posesyn.estimators.blazepose.detector import anchor_centres
from posesyn.estimators.blazepose.regions import Region, letterbox
from posesyn.types import ArrayImage, Person

NAMES = ("blazepose_lite", "blazepose", "blazepose_heavy")
pytestmark = pytest.mark.integration


class Original:
    """One file in the original runtime; outputs by their shape."""

    def __init__(self, data: bytes) -> None:
        runtime = pytest.importorskip("ai_edge_litert.interpreter", reason="the original runtime is not installed")
        self.interpreter = runtime.Interpreter(model_content=data, num_threads=1)
        self.interpreter.allocate_tensors()

    def __call__(self, picture: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], picture[None].astype(np.float32))
        self.interpreter.invoke()
        details = self.interpreter.get_output_details()
        return {tuple(one["shape"].tolist()): self.interpreter.get_tensor(one["index"]) for one in details}


@pytest.fixture(scope="session")
def photographs(shared) -> list[Person]:
    """Persons of the two sets of photographs, with a box around them."""
    balance = shared / "data" / "images" / "multiview_balance"
    truth = json.loads((balance / "annotations.json").read_text())["frames"]
    found = []
    for camera, frame in (("cam_01", "000"), ("cam_02", "020"), ("cam_03", "045"), ("cam_04", "010")):
        image = cv2.imread(str(balance / "frames" / f"{camera}_{frame}.jpg"))[..., ::-1].copy()
        points = np.array(truth[frame]["keypoints2d"][camera])[:, :2]
        box = np.concatenate((points.min(0) - 20, points.max(0) + 20))
        found.append(Person(f"{camera}_{frame}", ArrayImage(image), box, np.zeros((17, 2)), np.zeros(17), "coco17"))
    sports = LspExtended(shared / "data" / "lspet" / "val" / "joints.mat", shared / "data" / "lspet" / "val" / "images")
    return [*found, *(sports[row] for row in (3, 50, 200, 700))]


def refined_by_hand(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Means of 7 x 7 cells, point by point."""
    result = points.astype(np.float64).copy()
    for joint, (x, y) in enumerate(points / 4):
        column, row = int(x), int(y)
        if not (0 <= column < 64 and 0 <= row < 64):
            continue
        total = sum_x = sum_y = peak = 0.0
        for r in range(max(row - 3, 0), min(row + 4, 64)):
            for c in range(max(column - 3, 0), min(column + 4, 64)):
                value = 1 / (1 + np.exp(-float(np.clip(heat[r, c, joint], -60, 60))))
                total, sum_x, sum_y, peak = total + value, sum_x + value * c, sum_y + value * r, max(peak, value)
        if peak >= 0.5:
            result[joint] = 4 * sum_x / total, 4 * sum_y / total
    return result


def one_pass(original: Original, image: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray, Region]:
    """Joints (33, 3) in the frame of the picture, points (33, 2) in its pixels, and the next region."""
    answer = original(region.crop(image) / np.float32(255))
    points = refined_by_hand(answer[1, 195].reshape(39, 5)[:, :2], answer[1, 64, 64, 39][0])
    # From the crop to the picture by hand: turn and stretch about the middle of the region.
    offset = (points - 128) / 256 * region.side
    cos, sin = np.cos(region.angle), np.sin(region.angle)
    pixels = np.stack((cos * offset[:, 0] - sin * offset[:, 1], sin * offset[:, 0] + cos * offset[:, 1]), 1)
    pixels += (region.x, region.y)
    across, down = pixels[34] - pixels[33]
    following = Region(*pixels[33], 2.5 * float(np.hypot(across, down)), float(np.arctan2(across, -down)))
    x, y, z = answer[1, 117].reshape(39, 3)[:33].T
    return np.stack((cos * x - sin * y, sin * x + cos * y, z), 1), pixels[:33], following


@pytest.mark.parametrize("name", NAMES)
def test_two_passes_give_what_the_original_runtime_gives(name, published, tflite_files, photographs, monkeypatch):
    original, estimator = Original(tflite_files[name]), published(name, search="box")
    seen = []
    look = estimator._look
    monkeypatch.setattr(estimator, "_look", lambda images, regions: seen.append(regions) or look(images, regions))
    found = estimator.predict(photographs)
    for row, person in enumerate(photographs):
        image = person.image.load()
        _, _, region = one_pass(original, image, Region.of_box(person.body_box_xyxy))
        second = seen[1][row]
        assert np.abs(np.subtract((region.x, region.y, region.side), (second.x, second.y, second.side))).max() < 0.2
        assert abs(np.angle(np.exp(1j * (region.angle - second.angle)))) < 1e-3
        # On the very same crop: a hundredth of a pixel of another region rounds some of its pixels differently.
        joints, pixels, _ = one_pass(original, image, second)
        ours = found.joints_cam[row].astype(np.float64)
        shift = (ours - joints).mean(0)  # the place before the camera is ours
        assert 1000 * np.abs(ours - shift - joints).max() < 1.0, person.person_id
        assert np.abs(found.keypoints_px[row] - pixels).max() < 0.5, person.person_id


@pytest.mark.parametrize("name", NAMES)
def test_all_outputs_of_the_landmark_network(name, published, tflite_files, photographs):
    original, network = Original(tflite_files[name]), published(name).landmarks
    crop = Region.of_box(photographs[0].box_xyxy).crop(photographs[0].image.load()) / np.float32(255)
    answer = original(crop)
    with torch.inference_mode():
        found = network(torch.from_numpy(crop).permute(2, 0, 1)[None], segment=True)
    wanted = answer[1, 195].reshape(39, 5)
    np.testing.assert_allclose(found["points"][0], wanted[:, :3], atol=0.02)
    np.testing.assert_allclose(found["visibility"][0], wanted[:, 3], atol=0.01)
    np.testing.assert_allclose(found["point_presence"][0], wanted[:, 4], atol=0.01)
    np.testing.assert_allclose(found["world"][0], answer[1, 117].reshape(39, 3), atol=1e-4)
    np.testing.assert_allclose(found["presence"][0], answer[1, 1].item(), atol=1e-4)
    np.testing.assert_allclose(found["heat"][0].permute(1, 2, 0), answer[1, 64, 64, 39][0], atol=0.01)
    mask = answer[1, 256, 256, 1][0]
    np.testing.assert_allclose(found["segmentation"][0].permute(1, 2, 0), mask, atol=1e-3 * np.abs(mask).max())


def test_the_detector(published, tflite_files, photographs):
    original, estimator = Original(tflite_files["detector"]), published()
    for person in photographs:
        square, _ = letterbox(person.image.load())
        picture = square.astype(np.float32) / 127.5 - 1
        answer = original(picture)
        with torch.inference_mode():
            scores, boxes = estimator.detector(torch.from_numpy(picture).permute(2, 0, 1)[None])
        np.testing.assert_allclose(scores[0], answer[1, 2254, 1].ravel(), atol=0.02)
        raw = answer[1, 2254, 12].reshape(2254, 6, 2)
        raw[:, [0, 2, 3, 4, 5]] += anchor_centres()[:, None]
        np.testing.assert_allclose(boxes[0], raw, atol=0.1)
    # The man of the multi-view set is alone and seen well: one detection, with its hips inside his box.
    (found,) = estimator.detect_in(photographs[0].image.load())
    assert found.score > 0.8
    box = photographs[0].box_xyxy
    assert (found.points[0] > box[:2]).all() and (found.points[0] < box[2:]).all()


def test_the_detector_gives_the_first_region(published, photographs):
    by_box, by_detector = published(search="box"), published()
    boxed, detected = (one.predict(photographs[:4]) for one in (by_box, by_detector))
    assert not np.array_equal(boxed.keypoints_px, detected.keypoints_px)
    # Both ends look at the same man: the second pass brings them together.
    assert np.median(np.linalg.norm(boxed.keypoints_px - detected.keypoints_px, axis=-1)) < 25


def test_a_person_head_down_is_found_by_the_detector_and_turned_back(published, photographs):
    estimator = published("blazepose")
    person = photographs[0]
    image = person.image.load()
    height, width = image.shape[:2]
    turned = np.ascontiguousarray(image[::-1, ::-1])
    box = np.array([width, height, width, height]) - 1 - person.box_xyxy[[2, 3, 0, 1]]
    down = Person("down", ArrayImage(turned), box, np.zeros((17, 2)), np.zeros(17), "coco17")
    upright, found = estimator.predict([person]), estimator.predict([down])
    back = np.array([width - 1, height - 1]) - found.keypoints_px[0]
    assert np.median(np.linalg.norm(back - upright.keypoints_px[0], axis=-1)) < 12
    pose, other = (one.joints_cam[0] - one.joints_cam[0].mean(0) for one in (upright, found))
    assert np.abs(other * (-1, -1, 1) - pose).max() < 0.15


def test_without_a_person(published):
    estimator = published()
    grey = np.full((240, 320, 3), 128, np.uint8)
    assert estimator.detect_in(grey) == []
    person = Person("grey", ArrayImage(grey), np.array([60, 40, 200, 220]), np.zeros((17, 2)), np.zeros(17), "coco17")
    found = estimator.predict([person])
    assert np.isfinite(found.joints_cam).all() and np.isfinite(found.keypoints_px).all()
    crop = torch.full((1, 3, 256, 256), 0.5)
    with torch.inference_mode():
        assert float(estimator(crop)["presence"]) < 0.5
