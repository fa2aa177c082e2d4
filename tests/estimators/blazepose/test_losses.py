"""BlazePose's losses: zero at the truth, counted only where there is truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.blazepose.losses import SPREAD, BlazePoseWeights, blazepose_losses


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
    places = (points + 1) * 32
    steps = torch.arange(64)
    x, y = (torch.exp(-((steps - places[..., axis, None]) ** 2) / (2 * SPREAD**2)) for axis in (0, 1))
    heat = torch.logit((y[..., :, None] * x[..., None, :]).double().clamp(1e-12, 1 - 1e-12)).float()
    return {"world": joints + 0.7, "keypoints_norm": points, "heat": heat}


def test_the_truth_costs_nothing():
    losses = blazepose_losses(exact(batch()), batch())
    assert set(losses) == {"world", "local", "keypoints_2d", "heat"}
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
    prediction["keypoints_norm"][2, ankle, 0] += 0.2
    known = int((skeletons.mapping("smpl45", "blazepose33") >= 0).sum())
    bones = [pair for pair in skeletons.get("blazepose33").bones
             if (skeletons.mapping("smpl45", "blazepose33")[list(pair)] >= 0).all()]  # fmt: skip
    touched = sum(ankle in pair for pair in bones)
    losses = blazepose_losses(prediction, data, BlazePoseWeights(world=2.0))
    assert float(losses["world"]) == pytest.approx(2 * 0.3 / (2 * known * 3), rel=1e-4)
    assert float(losses["local"]) == pytest.approx(touched * 0.3 / (2 * len(bones) * 3), rel=1e-4)
    assert float(losses["keypoints_2d"]) == pytest.approx(0.2 / (3 * known * 2), rel=1e-4)


def test_heat_maps_lose_by_a_lost_peak_and_by_a_wrong_place():
    """Against a float64 loop; both ways out of an error cost something."""
    data, prediction = batch(1), exact(batch(1))
    weights = BlazePoseWeights(heat=1.0)
    prediction["heat"][0, 27] -= 3  # the left ankle's: weaker
    weaker = float(blazepose_losses(prediction, data, weights)["heat"])
    prediction = exact(data)
    prediction["heat"][0, 27] = prediction["heat"][0, 27].roll(5, -1)
    elsewhere = float(blazepose_losses(prediction, data, weights)["heat"])
    assert weaker > 0 and elsewhere > 0
    place = ((skeletons.convert(data["keypoints_norm"], "smpl45", "blazepose33")[0][0, 27] + 1) * 32).double().numpy()
    total = 0.0
    for row in range(64):
        for column in range(64):
            target = np.exp(-((column - place[0]) ** 2 + (row - place[1]) ** 2) / (2 * SPREAD**2))
            share = 1 / (1 + np.exp(-float(prediction["heat"][0, 27, row, column])))
            for part, guess in ((target, share), (1 - target, 1 - share)):
                total += part * np.log(part / guess) if part > 1e-12 else 0
    known = int((skeletons.mapping("smpl45", "blazepose33") >= 0).sum())
    assert elsewhere == pytest.approx(total / (2 * np.pi * SPREAD**2) / known, rel=1e-2)


def test_the_points_that_place_the_region_count_where_they_are_known():
    data, prediction = batch(), exact(batch())
    data |= {"region_norm": torch.zeros(3, 2, 2), "region_known": torch.tensor([True, False, False])}
    prediction["region_norm"] = torch.zeros(3, 2, 2)
    prediction["region_norm"][0, 1, 1] = 0.4
    prediction["region_norm"][1] = 5
    assert float(blazepose_losses(prediction, data)["region"]) == pytest.approx(0.5 * 0.4 / 4)


def test_joints_in_space_that_look_like_the_picture_cost_nothing():
    """Whatever their size, place and depth; a part that looks otherwise costs, also without 3D labels."""
    data, prediction = batch(), exact(batch())
    data["has_labels"][:] = False
    depth = torch.randn(3, 33, 1)
    prediction["world"] = torch.cat((prediction["keypoints_norm"] * 0.7 + 0.2, depth), dim=-1)
    weights = BlazePoseWeights(projected_2d=1.0)
    assert float(blazepose_losses(prediction, data, weights)["projected_2d"]) < 1e-6
    prediction["world"][0, 27, 0] += 0.5
    assert float(blazepose_losses(prediction, data, weights)["projected_2d"]) > 1e-3


def test_a_batch_without_labels_trains_on_the_picture_alone():
    data, prediction = batch(), exact(batch())
    data["has_labels"][:] = False
    losses = blazepose_losses(prediction, data)
    assert float(losses["world"]) == 0 and all(np.isfinite(float(value)) for value in losses.values())
    assert set(blazepose_losses(prediction, data, BlazePoseWeights(local=0))) == {"world", "keypoints_2d", "heat"}


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


def test_rendered_persons_count_in_space_only_unless_asked_for():
    data, prediction = batch(), exact(batch())
    data["is_synthetic"] = torch.tensor([True, False, False])
    prediction["keypoints_norm"][0] += 1
    prediction["heat"][0] = -8
    assert all(float(value) < 1e-6 for value in blazepose_losses(prediction, data).values())
    losses = blazepose_losses(prediction, data, BlazePoseWeights(synthetic_2d=True))
    assert float(losses["keypoints_2d"]) > 0.1 and float(losses["heat"]) > 0.01
    prediction["world"][0, 27] += 1
    assert float(blazepose_losses(prediction, data)["world"]) > 0
    data["is_synthetic"][:] = True
    assert float(blazepose_losses(prediction, data)["keypoints_2d"]) > 0.1
