"""Views of other cameras: within their limits, rotations as SciPy's, gradients, spread; what is saved comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn.errors import InputError
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmentor, ViewRange
from posesyn.synthesis.augmentation.bones import bone_lengths, bone_vectors

DOWN = np.array([0.0, 1.0, 0.0])  # of an upright person in the camera frame


def poses(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 16, 3, generator=generator) * 0.3 + torch.tensor([0.3, -0.1, 5.0])


def tilts(rotations: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Elevation and roll that a rotation gives to the vertical."""
    x, y, z = rotations.apply(DOWN).T
    return np.arctan2(z, y), np.arcsin(np.clip(-x, -1, 1))


def test_rotation_is_a_turn_about_the_vertical_and_then_a_tilt():
    views = ViewRange(elevation=(-0.2, 0.7), roll=0.1)
    share = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    found = views.rotvec(share).numpy()
    share = share.numpy()
    tilt = np.stack((0.25 + 0.45 * share[:, 0], np.zeros(200), 0.1 * share[:, 2]), 1)
    turn = np.stack((np.zeros(200), np.pi * share[:, 1], np.zeros(200)), 1)
    wanted = Rotation.from_rotvec(tilt) * Rotation.from_rotvec(turn)
    assert (wanted.inv() * Rotation.from_rotvec(found)).magnitude().max() < 1e-6
    elevation, roll = tilts(Rotation.from_rotvec(found))
    assert elevation.min() > -0.21 and elevation.max() < 0.71 and np.abs(roll).max() < 0.11
    assert elevation.min() < -0.15 and elevation.max() > 0.65


def test_gradient_agrees_with_finite_differences():
    share = torch.tensor([[0.3, -0.7, 0.2], [-0.9, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ViewRange().rotvec, share, eps=1e-6, atol=1e-6)


def test_drawn_views_move_the_camera_only():
    views = ViewRange(elevation=(-0.1, 0.5), roll=0.0, distance=(0.5, 2.0))
    pose = poses(400)
    seen = views.draw(pose, torch.Generator().manual_seed(1))
    torch.testing.assert_close(bone_lengths(bone_vectors(seen)), bone_lengths(bone_vectors(pose)), rtol=1e-4, atol=1e-5)
    factor = seen[:, 0].norm(dim=-1) / pose[:, 0].norm(dim=-1)
    assert 0.5 <= factor.min() < 0.55 and 1.9 < factor.max() <= 2.0
    rotations = [Rotation.align_vectors((b - b[0])[1:], (a - a[0])[1:])[0] for a, b in zip(pose.numpy(), seen.numpy())]
    elevation, roll = tilts(Rotation.concatenate(rotations))
    assert -0.101 < elevation.min() < -0.05 and 0.45 < elevation.max() < 0.501 and np.abs(roll).max() < 1e-3
    again = views.draw(pose, torch.Generator().manual_seed(1))
    assert torch.equal(seen, again)


def test_augmentor_stays_within_its_views():
    torch.manual_seed(0)
    network = Augmentor(views=ViewRange(elevation=(0.0, 0.4), roll=0.05)).eval()
    with torch.no_grad():
        network.RTprocess.w2_R.weight.mul_(20)
        made = network(poses(300))
    elevation, roll = tilts(Rotation.from_rotvec(made.rotvec.numpy()))
    assert elevation.min() > -0.01 and elevation.max() < 0.41 and np.abs(roll).max() < 0.06
    assert made.rotation_share.abs().max() <= 1 and made.rotation_share.abs().mean() > 0.8


def test_views_are_saved_with_the_augmentor(tmp_path):
    network = Augmentor(views=ViewRange(elevation=(-0.1, 0.3), distance=(0.8, 1.5))).eval()
    network.save(tmp_path / "augmentor.safetensors")
    again = Augmentor.load(tmp_path / "augmentor.safetensors")
    assert again.RTprocess.views == network.RTprocess.views
    pose = poses(5)
    made, same = (x(pose, generator=torch.Generator().manual_seed(2)) for x in (network, again))
    torch.testing.assert_close(made.pose_rt, same.pose_rt)


def test_spread_costs_views_that_are_alike():
    uniform = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    assert losses.spread_loss(uniform) == 0
    alike = torch.tensor([0.9, -0.2, 0.4], dtype=torch.float64).expand(50, 3)
    torch.testing.assert_close(losses.spread_loss(alike), torch.tensor(losses.SPREAD**2, dtype=torch.float64))
    share = (0.3 * uniform[:8]).requires_grad_()
    assert torch.autograd.gradcheck(losses.spread_loss, share, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", ({"elevation": (0.5, 0.1)}, {"elevation": (-2.0, 0.1)}, {"roll": -0.1}, {"distance": (0.0, 1.0)})
)
def test_impossible_ranges_are_refused(wrong):
    with pytest.raises(InputError, match="range of views"):
        ViewRange(**wrong)
