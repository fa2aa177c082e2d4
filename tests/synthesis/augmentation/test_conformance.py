"""Numbers of the official PoseAug code, stored in ../shared/conformance/poseaug."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from posesyn.estimators.lifters.lifter import make_lifter
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmentor
from posesyn.synthesis.augmentation.bones import (
    BONES,
    KCS_PARTS,
    bone_vectors,
    joints_from_bones,
    project_normalised,
    unit_bones,
    with_bone_lengths,
)
from posesyn.synthesis.augmentation.losses import PartDiscriminator, ProjectionDiscriminator


class Official:
    def __init__(self, folder) -> None:
        spec = importlib.util.spec_from_file_location("fill", folder.parent / "fill.py")
        self.fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.fill)
        self.spec = json.loads((folder / "spec.json").read_text())
        self.vectors = np.load(folder / "vectors.npz")

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        made = self.fill.state({**self.spec, "state_dict": self.spec["state_dicts"][name]}, given=self.vectors)
        return {key: torch.as_tensor(value) for key, value in made.items()}

    def load(self, name: str, module: torch.nn.Module) -> torch.nn.Module:
        module.load_state_dict(self.weights(name), strict=True)
        return module.eval()

    def given(self, name: str) -> torch.Tensor:
        return torch.as_tensor(self.vectors[name])

    def noise(self) -> list[torch.Tensor]:
        return [
            torch.as_tensor(self.fill.tensor(f"input:noise_{k}", (8, 48), self.spec["seed"]))
            for k in ("ba", "bl", "r", "t")
        ]

    def keypoints(self) -> torch.Tensor:
        return torch.as_tensor(0.35 * self.fill.tensor("input:lifter2d", (8, 16, 2), self.spec["seed"]))

    def compare(self, name: str, value: torch.Tensor) -> None:
        wanted = self.vectors[name]
        np.testing.assert_allclose(
            value.detach().numpy().reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4, err_msg=name
        )


@pytest.fixture(scope="module")
def official(shared) -> Official:
    return Official(shared / "conformance" / "poseaug")


@pytest.mark.parametrize("training", (False, True))
def test_the_augmentor(official, training):
    model = official.load("generator", Augmentor()).train(training)
    made = model(official.given("pose3d"), official.noise())
    prefix = "train_" if training else ""
    for stage in ("pose_ba", "pose_bl", "pose_rt"):
        official.compare(prefix + stage, getattr(made, stage))
    if not training:
        official.compare("ba_diff", made.angle_change)
        official.compare("blr", made.length_ratios)
        official.compare("rotation", made.rotvec)
        official.compare("translation", made.translation)


def test_projection_and_the_frame_filter(official):
    camera = official.given("camera")
    for name, pose in (("pose2d", "pose3d"), ("pose2d_ba", "pose_ba"), ("pose2d_rt", "pose_rt"), ("real2d", "real3d")):
        official.compare(name, project_normalised(official.given(pose), camera))
    kept = (official.given("pose2d_rt") <= 1).flatten(1).all(1)
    np.testing.assert_array_equal(kept.numpy(), official.vectors["kept"] > 0)


def test_the_discriminators(official):
    solid, flat = official.load("d3d", PartDiscriminator()), official.load("d2d", ProjectionDiscriminator())
    official.compare("d3d_pose", solid(official.given("pose3d")))
    official.compare("d3d_ba", solid(official.given("pose_ba")))
    official.compare("d2d_pose", flat(official.given("pose2d")))
    official.compare("d2d_rt", flat(official.given("pose2d_rt")))


def test_bones(official):
    unit = unit_bones(bone_vectors(official.given("pose3d")))
    official.compare("unit_pose", joints_from_bones(unit))
    for part, name in enumerate(("lh", "rh", "ll", "rl", "hb")):
        mask = torch.zeros(BONES, 1)
        mask[list(KCS_PARTS[part])] = 1
        official.compare(f"kcs_{name}", (unit[:2] * mask) @ (unit[:2] * mask).mT)
    lengths = official.given("templates")[official.given("template_index").long()]
    official.compare("bone_swap", with_bone_lengths(official.given("pose3d"), lengths))


@pytest.mark.parametrize(
    "official_name, name", (("mlp", "mlp"), ("videopose", "videopose"), ("gcn", "semgcn"), ("stgcn", "stgcn"))
)
def test_the_lifters(official, official_name, name):
    lifter = official.load(official_name, make_lifter(name))
    official.compare(f"lift_{official_name}", lifter(official.keypoints()))
    alone = torch.cat([lifter(row[None]) for row in official.keypoints()])
    official.compare(f"lift_{official_name}", alone)


def test_the_losses(official):
    solid, flat = official.load("d3d", PartDiscriminator()), official.load("d2d", ProjectionDiscriminator())
    lifter = official.load("mlp", make_lifter("mlp"))
    given = official.given
    adversarial3d = losses.generator_adversarial(solid(given("pose3d")), solid(given("pose_ba")))
    adversarial2d = losses.generator_adversarial(flat(given("pose2d")), flat(given("pose2d_rt")))
    angle, lengths = losses.change_loss(given("ba_diff"), given("blr"))
    official.compare("loss_adv3d", adversarial3d)
    official.compare("loss_adv2d", adversarial2d)
    official.compare("loss_diff_angle", angle)
    official.compare("loss_diff_blr", lengths)
    official.compare("loss_diff", angle + lengths)

    errors = [
        losses.group_errors(lifter(given(flat_name)), given(name))
        for flat_name, name in (("pose2d", "pose3d"), ("pose2d_ba", "pose_ba"), ("pose2d_rt", "pose_rt"))
    ]
    for name, value in zip(("origin", "ba", "rt"), errors):
        official.compare(f"loss_feedback_{name}", value.mean())
    weights = losses.FeedbackWeights()
    ba, rt = losses.feedback_loss(*errors, weights, epoch=3, epochs=50)
    official.compare("loss_feedback_ba_mean", ba)
    official.compare("loss_feedback_rt_mean", rt)
    feedback = weights.angle * ba + weights.transform * rt
    official.compare("loss_feedback", feedback)
    total = adversarial2d + 6 * adversarial3d + feedback + 3 * (angle + lengths)
    official.compare("loss_generator_total", total)
    official.compare("loss_d3d", losses.discriminator_adversarial(solid(given("real3d")), solid(given("pose_ba"))))
    official.compare("loss_d2d", losses.discriminator_adversarial(flat(given("real2d")), flat(given("pose2d_rt"))))


def test_the_constant_graphs(official):
    from posesyn.estimators.lifters.graphs import joint_graph, part_graph

    np.testing.assert_allclose(joint_graph(), official.vectors["stgcn_graph"], atol=1e-6)
    np.testing.assert_allclose(part_graph(), official.vectors["stgcn_pool_graph"], atol=1e-6)
