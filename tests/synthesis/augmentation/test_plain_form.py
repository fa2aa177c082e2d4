"""Augmentor, discriminators and lifters at random weights and several batch sizes against a float64 loop over bones and
layers, written from what jfzhang95/PoseAug computes; no stored vectors of the official code are needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.estimators.lifters.lifter import make_lifter
from posesyn.synthesis.augmentation.augmentor import Augmentor
from posesyn.synthesis.augmentation.losses import PartDiscriminator, ProjectionDiscriminator

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)
RATIO = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8)
PARTS = ((7, 9, 10, 11), (7, 12, 13, 14), (0, 1, 2, 3, 6), (0, 3, 4, 5, 6), (0, 3, 6, 7, 8, 9, 12))
Weights = dict[str, np.ndarray]


def shaken(module: torch.nn.Module, seed: int) -> tuple[torch.nn.Module, Weights]:
    """Eval mode with random running statistics; its weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    for parameter in module.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module.eval(), {name: value.double().numpy() for name, value in module.state_dict().items()}


def poses(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    joints = np.zeros((count, 16, 3))
    for child in range(1, 16):
        step = rng.normal(size=(count, 3))
        joints[:, child] = joints[:, PARENTS[child]] - 0.3 * step / np.linalg.norm(step, axis=1, keepdims=True)
    return joints + rng.normal(0, 0.3, (count, 1, 3)) + [0, 0, 5]


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].reshape(w[f"{name}.weight"].shape[:2]).T + w.get(f"{name}.bias", 0.0)


def norm(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    scale = w[f"{name}.weight"] / np.sqrt(w[f"{name}.running_var"] + 1e-5)
    return (x - w[f"{name}.running_mean"]) * scale + w[f"{name}.bias"]


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def trunk(w: Weights, net: str, suffix: str, x: np.ndarray) -> np.ndarray:
    x = leaky(norm(w, f"{net}.batch_norm{suffix or '1'}", linear(w, f"{net}.w1{suffix}", x)))
    for stage in range(2):
        for layer in (1, 2):
            here = f"{net}.linear_stages{suffix}.{stage}"
            x = leaky(norm(w, f"{here}.batch_norm{layer}", linear(w, f"{here}.w{layer}", x)))
    return linear(w, f"{net}.w2{suffix}", x)


def joints_of(bones: np.ndarray) -> np.ndarray:
    joints = np.zeros((16, 3))
    for child in range(1, 16):
        joints[child] = joints[PARENTS[child]] - bones[child - 1]
    return joints


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "seed"), ((1, 11), (5, 12)))
def test_augmentor(count, seed):
    model, w = shaken(Augmentor(), seed)
    pose, rng = poses(count, seed), np.random.default_rng(seed)
    noise = [rng.normal(size=(count, 48)) for _ in range(4)]
    made = model(torch.from_numpy(pose).float(), [torch.from_numpy(part).float() for part in noise])
    for row in range(count):
        root, flat = pose[row, 0], (pose[row] - pose[row, 0]).ravel()
        bones = np.array([pose[row, PARENTS[child]] - pose[row, child] for child in range(1, 16)])
        lengths = np.linalg.norm(bones, axis=1)
        change = trunk(w, "BAprocess", "", np.concatenate((flat, noise[0][row]))).reshape(15, 3)
        unit, turned = bones / lengths[:, None], []
        for bone in range(15):
            new = unit[bone] + change[bone]
            turned.append(unit[bone] if bone in (6, 7) else new / np.linalg.norm(new))
        turned = np.array(turned)
        ratios = trunk(w, "BLprocess", "_BL", np.concatenate((flat, lengths, noise[1][row])))
        ratios[4] = 0
        ratios = 0.2 * np.tanh(ratios)
        longer = lengths * (1 + ratios[list(RATIO)])
        axis = 3.1415 * np.tanh(trunk(w, "RTprocess", "_R", np.concatenate((flat, noise[2][row]))))
        moved = trunk(w, "RTprocess", "_T", np.concatenate((flat, noise[3][row])))
        moved[2] **= 2
        close(made.pose_ba[row], joints_of(turned * lengths[:, None]) + root)
        close(made.angle_change[row], 1 - (turned * unit).sum(1))
        close(made.length_ratios[row], ratios)
        bent = joints_of(turned * longer[:, None])
        close(made.pose_bl[row], bent + root)
        close(made.pose_rt[row], Rotation.from_rotvec(axis).apply(bent) + moved)


@pytest.mark.parametrize(("count", "seed"), ((1, 21), (5, 22)))
def test_discriminators(count, seed):
    model, w = shaken(PartDiscriminator(), seed)
    pose = poses(count, seed)
    wanted = np.zeros((count, 5))
    for row in range(count):
        bones = np.array([pose[row, PARENTS[child]] - pose[row, child] for child in range(1, 16)])
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        for part, kept in enumerate(PARTS):
            masked = np.where(np.isin(np.arange(15), kept)[:, None], bones, 0)
            here = f"kcs_path_{part + 1}"
            first = leaky(linear(w, f"{here}.kcs_layer_1", (masked @ masked.T).ravel()))
            x = linear(w, f"{here}.kcs_layer_3", leaky(linear(w, f"{here}.kcs_layer_2", first))) + first
            x = leaky(linear(w, f"{here}.layer_last", x))
            wanted[row, part] = linear(w, f"{here}.layer_pred", x)[0]
    close(model(torch.from_numpy(pose).float()), wanted)

    model, w = shaken(ProjectionDiscriminator(), seed)
    flat = np.random.default_rng(seed).normal(0, 0.4, (count, 16, 2))
    first = leaky(linear(w, "pose_layer_1", flat.reshape(count, -1)))
    x = linear(w, "pose_layer_3", leaky(linear(w, "pose_layer_2", first))) + first
    x = linear(w, "pose_layer_4", leaky(x))
    x = leaky(linear(w, "layer_last", x))
    close(model(torch.from_numpy(flat).float()), linear(w, "layer_pred", x))


def _mlp(w: Weights, flat: np.ndarray) -> np.ndarray:
    def layer(here: str, index: int, x: np.ndarray) -> np.ndarray:
        return np.maximum(norm(w, f"{here}batch_norm{index}", linear(w, f"{here}w{index}", x)), 0)

    x = layer("", 1, flat)
    for stage in range(2):
        x = x + layer(f"linear_stages.{stage}.", 2, layer(f"linear_stages.{stage}.", 1, x))
    return linear(w, "w2", x)


def _videopose(w: Weights, flat: np.ndarray) -> np.ndarray:
    def layer(conv: str, bn: str, x: np.ndarray) -> np.ndarray:
        return np.maximum(norm(w, bn, linear(w, conv, x)), 0)

    x = layer("expand_conv", "expand_bn", flat)
    for stage in range(4):
        hidden = layer(f"layers_conv.{2 * stage}", f"layers_bn.{2 * stage}", x)
        x = x + layer(f"layers_conv.{2 * stage + 1}", f"layers_bn.{2 * stage + 1}", hidden)
    return linear(w, "shrink", x)


@pytest.mark.parametrize(("name", "plain"), (("mlp", _mlp), ("videopose", _videopose)))
@pytest.mark.parametrize("count", (1, 3))
def test_lifters(name, plain, count):
    torch.manual_seed(count)
    model, w = shaken(make_lifter(name), 30 + count)
    flat = np.random.default_rng(count).normal(0, 0.4, (count, 16, 2))
    wanted = plain(w, flat.reshape(count, -1)).reshape(count, 15, 3)
    found = model(torch.from_numpy(flat).float())
    scale = max(1.0, np.abs(wanted).max())
    close(found[:, 1:] / scale, wanted / scale)
    assert not found[:, 0].abs().any()
