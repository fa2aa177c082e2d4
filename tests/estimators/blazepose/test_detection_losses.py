"""The detector's losses: what is pulled, what is made sure or unsure, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.estimators.blazepose.detection_losses import detection_losses
from posesyn.estimators.blazepose.detector import SIZE, anchor_centres
from posesyn.estimators.blazepose.estimator import BlazePose
from posesyn.estimators.blazepose.losses import BlazePoseWeights

ANCHORS = len(anchor_centres())
MIDDLE, RIM = np.array([110.0, 120.0]), np.array([110.0, 70.0])
BOX = np.array([[60.0, 60.0], [160.0, 180.0]])


def norm(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels / (SIZE / 2) - 1).float()


def batch(known: bool = True) -> dict[str, torch.Tensor]:
    region = norm(np.stack((MIDDLE, RIM)))
    return {"surroundings_region": region[None], "surroundings_box": norm(BOX)[None],
            "region_known": torch.tensor([known])}  # fmt: skip


def values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def answer(inside: dict[int, tuple[float, np.ndarray]], outside_score: float = -20.0):
    """Anchors that place the hips far outside the box, but for those given: score and shift (2, 2) of both points."""
    scores = torch.full((1, ANCHORS), outside_score, requires_grad=True)
    boxes = torch.full((1, ANCHORS, 6, 2), 5.0)
    with torch.no_grad():
        for row, (score, shift) in inside.items():
            scores[0, row] = score
            boxes[0, row, 2:4] = torch.from_numpy(np.stack((MIDDLE, RIM)) + shift).float()
    return scores, boxes.requires_grad_()


def test_sure_and_right_costs_nothing():
    exact = {row: (20.0, np.zeros((2, 2))) for row in range(8)}
    losses = values(detection_losses(*answer(exact), batch()))
    assert losses["detector_points"] == pytest.approx(0, abs=1e-6)
    assert losses["detector_scores"] < 1e-6


def test_the_figures_are_those_of_a_loop():
    """Eight right ones with errors, two false ones, one more right one that is left alone; float64, written out."""
    rng = np.random.default_rng(0)
    found = {row: (float(rng.normal(1, 1)), rng.normal(0, 4, (2, 2))) for row in range(8)}
    found |= {8: (1.5, np.full((2, 2), 40.0)), 9: (-0.5, np.full((2, 2), -45.0))}
    found[10] = (-9.0, np.full((2, 2), 4.0))
    losses = values(detection_losses(*answer(found), batch()))
    radius = 50.0
    points, surprise = [], 0.0
    for row, (score, shift) in found.items():
        error = np.linalg.norm(shift, axis=1).mean() / radius
        chance = 1 / (1 + np.exp(-score))
        if row == 10:
            continue
        wanted = np.exp(-((error / 0.45) ** 2)) if row < 8 else 0.0
        if row < 8:
            points.append(np.abs(shift).sum(1).mean() / radius)
        entropy = -wanted * np.log(chance) - (1 - wanted) * np.log(1 - chance)
        surprise += (wanted - chance) ** 2 * entropy
    assert losses["detector_points"] == pytest.approx(np.mean(points), rel=1e-4)
    assert losses["detector_scores"] == pytest.approx(surprise / 8, rel=1e-3)


def test_gradients_raise_the_right_and_lower_the_false():
    found = {row: (0.0, np.full((2, 2), 3.0)) for row in range(8)}
    found |= {8: (0.0, np.full((2, 2), 50.0)), 9: (-6.0, np.full((2, 2), 5.0))}
    scores, boxes = answer(found)
    losses = detection_losses(scores, boxes, batch())
    (losses["detector_points"] + losses["detector_scores"]).backward()
    assert scores.grad is not None and boxes.grad is not None
    assert (scores.grad[0, :8] < 0).all() and float(scores.grad[0, 8]) > 0
    assert float(scores.grad[0, 9]) == 0  # right, but not among the eight
    pulled = boxes.grad[0].abs().sum((1, 2))
    assert (pulled[:8] > 0).all() and not pulled[8:].any()
    assert not boxes.grad[0, :, [0, 1, 4, 5]].any()  # face box and further points have no truth


def test_who_stands_outside_the_box_is_left_alone_when_sure():
    scores, boxes = answer({0: (3.0, np.zeros((2, 2)))}, outside_score=-1.0)
    with torch.no_grad():
        scores[0, 500] = 4.0
    detection_losses(scores, boxes, batch())["detector_scores"].backward()
    assert scores.grad is not None
    assert float(scores.grad[0, 500]) == 0 and float(scores.grad[0, 501]) > 0


def test_persons_whose_region_is_unknown_do_not_count():
    losses = values(detection_losses(*answer({0: (0.0, np.ones((2, 2)))}), batch(known=False)))
    assert losses == {"detector_points": 0, "detector_scores": 0}


@pytest.fixture(scope="module")
def seeking() -> BlazePose:
    torch.manual_seed(0)
    return BlazePose("lite")


def test_the_detector_learns_where_it_is_used_and_not_where_it_is_not(seeking):
    pictures = {**batch(), "surroundings": torch.rand(1, 3, SIZE, SIZE), "images": torch.rand(1, 3, 256, 256)}
    pictures |= {
        "region_norm": torch.zeros(1, 2, 2), "keypoints_norm": torch.zeros(1, 45, 2), "joints": torch.zeros(1, 45, 3),
        "visible": torch.zeros(1, 45, dtype=torch.bool), "has_labels": torch.tensor([False]),
    }  # fmt: skip
    assert seeking.spec.surroundings == SIZE
    seeking.zero_grad()
    losses = seeking.training_losses(pictures)
    losses["detector_scores"].backward()
    assert all(one.grad is not None for name, one in seeking.detector.named_parameters() if "scores" in name)
    seeking.loss_weights = BlazePoseWeights(detector=0.0)
    assert not any("detector" in name for name in seeking.training_losses(pictures))
    boxed = BlazePose("lite", search="box")
    assert boxed.spec.surroundings == 0 and not any(one.requires_grad for one in boxed.detector.parameters())
