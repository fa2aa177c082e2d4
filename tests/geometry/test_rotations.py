"""Oracle: SciPy; finite differences through torch.autograd.gradcheck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from posesyn.errors import InputError
from posesyn.geometry import rotations as rot

BATCHES = [(), (1,), (3,), (4, 2), (2, 3, 5), (0,)]


def _rotvecs(rng, batch) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(*batch, 3)))


def _scipy(rotvec: torch.Tensor) -> np.ndarray:
    return Rotation.from_rotvec(rotvec.reshape(-1, 3).numpy()).as_matrix().reshape(*rotvec.shape[:-1], 3, 3)


@pytest.mark.parametrize("batch", BATCHES)
def test_rotvec_and_quaternions_against_scipy(rng, batch):
    rotvec = _rotvecs(rng, batch)
    matrix = rot.rotvec_to_matrix(rotvec)
    assert matrix.shape == (*batch, 3, 3)
    if 0 in batch:
        return
    np.testing.assert_allclose(matrix, _scipy(rotvec), atol=1e-12)
    back = rot.matrix_to_rotvec(matrix)
    np.testing.assert_allclose(rot.rotvec_to_matrix(back), matrix, atol=1e-12)
    xyzw = Rotation.from_matrix(matrix.reshape(-1, 3, 3).numpy()).as_quat().reshape(*batch, 4)
    np.testing.assert_allclose(rot.quat_to_matrix(3 * torch.from_numpy(np.roll(xyzw, 1, -1))), matrix, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1.0, np.pi - 1e-6, np.pi])
def test_angles_at_the_ends(rng, angle):
    axis = rng.normal(size=(20, 3))
    rotvec = torch.from_numpy(angle * axis / np.linalg.norm(axis, axis=1, keepdims=True))
    matrix = rot.rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(matrix, _scipy(rotvec), atol=1e-12)
    back = rot.matrix_to_rotvec(matrix)
    assert torch.isfinite(back).all()
    np.testing.assert_allclose(rot.rotvec_to_matrix(back), matrix, atol=1e-7)
    np.testing.assert_allclose(back.norm(dim=-1), angle, atol=1e-7)


def test_gradient_at_zero_is_finite_and_right():
    rotvec = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rot.rotvec_to_matrix, rotvec)
    rot.matrix_to_rotvec(rot.rotvec_to_matrix(rotvec)).sum().backward()
    np.testing.assert_allclose(rotvec.grad, 1, atol=1e-9)


def _gram_schmidt_loop(a1, a2):
    result = []
    for u, v in zip(a1, a2):
        b1 = u / np.linalg.norm(u)
        b2 = v - (b1 @ v) * b1
        b2 = b2 / np.linalg.norm(b2)
        result.append(np.stack((b1, b2, np.cross(b1, b2)), axis=1))
    return np.array(result)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_rot6d_layouts_against_a_loop(rng, batch):
    # A batch of three once made torch.cross run over the batch axis (3DCrowdNet).
    x = rng.normal(size=(batch, 6))
    spin = x.reshape(-1, 3, 2)
    np.testing.assert_allclose(
        rot.rot6d_to_matrix(torch.from_numpy(x)), _gram_schmidt_loop(spin[..., 0], spin[..., 1]), atol=1e-12
    )
    hmr2 = x.reshape(-1, 2, 3)
    np.testing.assert_allclose(
        rot.rot6d_to_matrix(torch.from_numpy(x), "contiguous"), _gram_schmidt_loop(hmr2[:, 0], hmr2[:, 1]), atol=1e-12
    )


@pytest.mark.parametrize("layout", ["interleaved", "contiguous"])
@pytest.mark.parametrize("batch", [(), (3,), (3, 3), (2, 24)])
def test_rot6d_round_trip(rng, batch, layout):
    matrix = rot.rotvec_to_matrix(_rotvecs(rng, batch))
    x = rot.matrix_to_rot6d(matrix, layout)
    assert x.shape == (*batch, 6)
    np.testing.assert_allclose(rot.rot6d_to_matrix(x, layout), matrix, atol=1e-12)


def test_mean_pose_of_spin_is_a_half_turn_only_in_its_own_layout():
    root = torch.tensor([1.0, 0, 0, -1, 0, 0])
    np.testing.assert_allclose(rot.rot6d_to_matrix(root), np.diag([1.0, -1, -1]), atol=1e-7)
    assert not torch.allclose(rot.rot6d_to_matrix(root, "contiguous"), torch.diag(torch.tensor([1.0, -1, -1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "a1, a2",
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 2, 0]),
        ([1, 2, 3], [0, 0, 0]),
        ([1, 2, 3], [-2, -4, -6]),
        ([0.1, 0.7, 0.3], [0.3, 2.1, 0.9]),
        ([1e-20, 0, 0], [1, 0, 0]),
    ],
)
def test_degenerate_6d_gives_a_rotation_with_finite_gradients(a1, a2, dtype):
    x = torch.tensor([[*a1, *a2]], dtype=dtype, requires_grad=True)
    matrix = rot.rot6d_to_matrix(x, "contiguous")
    np.testing.assert_allclose((matrix @ matrix.transpose(-1, -2)).detach()[0], np.eye(3), atol=1e-5)
    assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-5)
    matrix.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_rot6d_gradcheck(rng):
    x = torch.from_numpy(rng.normal(size=(3, 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: rot.rot6d_to_matrix(v, "interleaved"), x)


def test_slerp_against_scipy(rng):
    keys = Rotation.from_rotvec(rng.normal(size=(2, 3)))
    weights = np.linspace(0, 1, 7)
    expected = Slerp([0, 1], keys)(weights).as_matrix()
    start, end = torch.from_numpy(keys.as_matrix())
    np.testing.assert_allclose(rot.slerp(start, end, torch.from_numpy(weights)), expected, atol=1e-10)
    np.testing.assert_allclose(rot.slerp(start, end, 0.5), expected[3], atol=1e-10)


def test_rotation_between(rng):
    source, target = _rotvecs(rng, (3, 50)), _rotvecs(rng, (3, 50))
    matrix = rot.rotation_between(source, target)
    turned = (matrix @ source[..., None])[..., 0]
    np.testing.assert_allclose(
        turned / turned.norm(dim=-1, keepdim=True), target / target.norm(dim=-1, keepdim=True), atol=1e-9
    )
    cosine = (source * target).sum(-1) / source.norm(dim=-1) / target.norm(dim=-1)
    np.testing.assert_allclose(rot.matrix_to_rotvec(matrix).norm(dim=-1), torch.arccos(cosine), atol=1e-6)
    half = rot.rotation_between(source, -2 * source)
    np.testing.assert_allclose((half @ source[..., None])[..., 0], -source, atol=1e-6)
    np.testing.assert_allclose(rot.rotation_between(source, source), np.broadcast_to(np.eye(3), half.shape), atol=1e-7)
    np.testing.assert_allclose(rot.rotation_between(torch.zeros(3), torch.ones(3)), np.eye(3))


@pytest.mark.parametrize(
    "call",
    [
        lambda: rot.rotvec_to_matrix(torch.zeros(2, 4)),
        lambda: rot.matrix_to_rotvec(torch.zeros(3)),
        lambda: rot.rot6d_to_matrix(torch.zeros(2, 3, 2)),
        lambda: rot.rot6d_to_matrix(torch.zeros(6), "hmr2"),
        lambda: rot.matrix_to_rot6d(torch.zeros(3, 3), "hmr2"),
        lambda: rot.quat_to_matrix(torch.zeros(3)),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call()
