"""BlazePose's losses: zero at the truth, counted only where there is truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.blazepose.losses import BlazePoseWeights, blazepose_losses


def batch(count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "keypoints_norm": torch.rand(count, 45, 2, generator=generator) - 0.5,
        "visible": torch.ones(count, 45, dtype=torch.bool),
        "has_labels": torch.tensor([True, False, True][:count]),
        "joints": torch.randn(count, 45, 3, generator=generator),
    }


def exact(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A prediction that is right, moved as a whole in space."""
    joints, _ = skeletons.convert(data["joints"], "smpl45", "blazepose33")
    points, _ = skeletons.convert(data["keypoints_norm"], "smpl45", "blazepose33")
    return {"world": joints + 0.7, "keypoints_norm": points, "refined_norm": points.clone()}


def test_the_truth_costs_nothing():
    losses = blazepose_losses(exact(batch()), batch())
    assert set(losses) == {"world", "local", "keypoints_2d", "refined_2d"}
    assert all(float(value) < 1e-6 for value in losses.values())


def test_only_known_joints_of_labelled_persons_count():
    data, prediction = batch(), exact(batch())
    prediction["world"][1] += torch.randn(33, 3)
    unknown = [skeletons.get("blazepose33").index(name) for name in ("mouth_left", "left_thumb", "right_eye_inner")]
    prediction["world"][:, unknown] += 9
    prediction["keypoints_norm"][:, unknown] += 9
    assert all(float(value) < 1e-6 for value in blazepose_losses(prediction, data).values())
    data["visible"][0] = False
    prediction["keypoints_norm"][0] += 1
    assert float(blazepose_losses(prediction, data)["keypoints_2d"]) < 1e-6


def test_errors_are_means_of_absolute_differences():
    data, prediction = batch(), exact(batch())
    ankle = skeletons.get("blazepose33").index("left_ankle")
    prediction["world"][0, ankle, 2] += 0.3
    prediction["refined_norm"][2, ankle, 0] += 0.2
    known = int((skeletons.mapping("smpl45", "blazepose33") >= 0).sum())
    bones = [pair for pair in skeletons.get("blazepose33").bones
             if (skeletons.mapping("smpl45", "blazepose33")[list(pair)] >= 0).all()]  # fmt: skip
    touched = sum(ankle in pair for pair in bones)
    losses = blazepose_losses(prediction, data, BlazePoseWeights(world=2.0, refined_2d=1.0))
    assert float(losses["world"]) == pytest.approx(2 * 0.3 / (2 * known * 3), rel=1e-4)
    assert float(losses["local"]) == pytest.approx(touched * 0.3 / (2 * len(bones) * 3), rel=1e-4)
    assert float(losses["refined_2d"]) == pytest.approx(0.2 / (3 * known * 2), rel=1e-4)


def test_a_batch_without_labels_trains_on_the_picture_alone():
    data, prediction = batch(), exact(batch())
    data["has_labels"][:] = False
    losses = blazepose_losses(prediction, data)
    assert float(losses["world"]) == 0 and all(np.isfinite(float(value)) for value in losses.values())
    assert set(blazepose_losses(prediction, data, BlazePoseWeights(local=0))) == {"world", "keypoints_2d", "refined_2d"}


def test_a_batch_that_lacks_something_is_refused():
    data = batch()
    del data["joints"]
    with pytest.raises(InputError, match="no joints"):
        blazepose_losses(exact(batch()), data)


def test_the_network_agrees_with_its_own_labels(random_lite):
    """As a teacher: what it would label a batch with costs it nothing, in any joint that has a truth."""
    images = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        labels = random_lite.pseudo_labels({"images": images})
        batch = {
            "images": images,
            "keypoints_norm": labels["joints_norm"],
            "visible": labels["known"].expand(2, -1),
            "has_labels": torch.ones(2, dtype=torch.bool),
            "joints": labels["joints"],
        }
        losses = random_lite.training_losses(batch)
    assert int(labels["known"].sum()) == 23 and labels["joints"][:, labels["known"]].abs().sum() > 0
    for name in ("world", "local", "keypoints_2d"):
        assert float(losses[name]) == pytest.approx(0, abs=1e-6)
