"""The shipped body: shape, sides, joints, skinning, shape space."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.body.files import ASSETS, read_free_body
from posesyn.errors import FileError, InputError

SMPL45 = skeletons.get("smpl45").joints


@pytest.fixture(scope="module")
def bodies():
    return {size: load_body("anny", size) for size in ("full", "small")}


def _rest(body, betas=None):
    betas = torch.zeros(1, 10) if betas is None else betas
    return body(torch.eye(3).expand(len(betas), 24, 3, 3), betas)


@pytest.mark.parametrize("size", ["full", "small"])
def test_template_is_an_adult_in_t_pose_facing_forwards(bodies, size):
    body = bodies[size]
    output = _rest(body)
    vertices, joints = output.vertices[0].numpy(), dict(zip(SMPL45, output.joints[0].numpy(), strict=True))
    assert body.num_vertices == {"full": 13718, "small": 1200}[size]
    assert output.joints.shape == (1, 45, 3)
    assert 1.6 < np.ptp(vertices[:, 1]) < 1.8
    centre = np.concatenate([body.v_template.numpy()[:, :1]]).mean()
    assert abs(centre) < 0.01
    for name, joint in joints.items():
        if name.startswith(("left", "l_")) or (name[0] == "l" and "r" + name[1:] in joints):
            partner = joints[name.replace("left", "right") if name.startswith("left") else "r" + name[1:]]
            assert joint[0] > 0.01 > -0.01 > partner[0], name
            np.testing.assert_allclose(joint, partner * [-1, 1, 1], atol=0.004, err_msg=name)
    nose, head = output.joints[0, 24], output.joints[0, 15]
    assert nose[2] - head[2] > 0.05
    big_toe, heel = output.joints[0, 29], output.joints[0, 31]
    assert big_toe[2] - heel[2] > 0.2
    wrists = output.joints[0, [20, 21]]
    shoulders = output.joints[0, [16, 17]]
    assert (wrists[:, 1] - shoulders[:, 1]).abs().max() < 0.02  # arms level
    assert torch.allclose(output.joints[0, 0], torch.tensor([0.0, -0.22, 0.03]), atol=0.005)


@pytest.mark.parametrize("size", ["full", "small"])
def test_joints_lie_inside_their_limbs(bodies, size):
    """Each limb joint is about the centre of the ring of vertices at its height along the bone."""
    body = bodies[size]
    output = _rest(body)
    vertices, joints = output.vertices[0].numpy(), output.joints[0].numpy()
    for joint, parent, tolerance in (
        (4, 1, 0.03),
        (5, 2, 0.03),
        (18, 16, 0.03),
        (19, 17, 0.03),
        (7, 4, 0.03),
        (20, 18, 0.02),
    ):
        along = joints[joint] - joints[parent]
        along /= np.linalg.norm(along)
        offset = vertices - joints[joint]
        near = (np.abs(offset @ along) < 0.03) & (np.linalg.norm(offset, axis=1) < 0.12)
        ring = offset[near] - (offset[near] @ along)[:, None] * along
        assert np.linalg.norm((ring.max(0) + ring.min(0)) / 2) < tolerance, SMPL45[joint]


@pytest.mark.parametrize("size", ["full", "small"])
def test_faces_look_outwards_and_parts_are_named(bodies, size):
    body = bodies[size]
    vertices = body.v_template.numpy()
    a, b, c = vertices[body.faces].transpose(1, 0, 2)
    volume = np.einsum("fc,fc->f", a, np.cross(b, c)).sum() / 6
    assert 0.04 < volume < 0.12  # cubic metres, positive only if faces are counter-clockwise from outside
    assert body.uv_faces.shape == body.faces.shape and body.uv_faces.max() < len(body.uv)
    assert body.uv.min() >= 0 and body.uv.max() <= 1
    names = np.array(body.part_names)[body.part_of_vertex]
    for name, x in (("lhand", 1), ("rhand", -1), ("lfoot", 1), ("rthigh", -1), ("lupperarm", 1)):
        assert (np.sign(vertices[names == name, 0]) == x).all(), name
    assert (
        vertices[names == "scalp", 1].mean() > vertices[names == "face", 1].mean() > vertices[names == "neck", 1].mean()
    )
    assert vertices[names == "face", 2].mean() > vertices[names == "scalp", 2].mean()


def test_both_sizes_have_the_same_joints(bodies):
    betas = torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    difference = (bodies["full"].rest_joints(betas) - bodies["small"].rest_joints(betas)).norm(dim=-1)
    assert difference.mean() < 0.001 and difference.max() < 0.006


def test_betas_are_adults(bodies):
    betas = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vertices = _rest(bodies["small"], betas).vertices
    height = vertices[..., 1].amax(1) - vertices[..., 1].amin(1)
    assert 1.65 < height.mean() < 1.75 and 0.08 < height.std() < 0.13 and 1.3 < height.min() < height.max() < 2.15
    taller = _rest(bodies["small"], torch.eye(10)[:1]).vertices[0]
    assert np.ptp(taller[:, 1].numpy()) > np.ptp(bodies["small"].v_template[:, 1].numpy()) + 0.05


@pytest.mark.parametrize("size", ["full", "small"])
def test_joints_only_and_rest_joints_equal_the_skinned_body(bodies, size):
    body = bodies[size].to(torch.float64)
    generator = torch.Generator().manual_seed(1)
    pose = roma.random_rotmat((6, 24), dtype=torch.float64)
    betas, transl = torch.randn(6, 10, generator=generator).double(), torch.randn(6, 3, generator=generator).double()
    output = body(pose, betas, transl)
    assert output.vertices.dtype == torch.float64
    torch.testing.assert_close(body.joints_only(pose, betas, transl), output.joints[:, :24], atol=1e-6, rtol=0)
    rest = body(torch.eye(3, dtype=torch.float64).expand(6, 24, 3, 3), betas).joints[:, :24]
    torch.testing.assert_close(body.rest_joints(betas), rest, atol=1e-6, rtol=0)
    one = body(pose, betas[:1], transl[:1])
    torch.testing.assert_close(one.vertices[0], output.vertices[0])
    np.testing.assert_allclose(transl[0], output.joints[0, 0] - body.rest_joints(betas)[0, 0], atol=1e-6)
    body.to(torch.float32)


def test_mirrored_pose_gives_the_mirrored_body(bodies):
    body = bodies["full"]
    rotvec = 0.5 * torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(2))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    order = list(skeletons.get("smpl24").flip)
    mirrored = rotvec[:, order] * -flip  # nkolot/SPIN, utils/imutils.py
    pose = roma.rotvec_to_rotmat(torch.cat([rotvec, mirrored]))
    joints = body.joints_only(pose, torch.zeros(1, 10))
    torch.testing.assert_close(joints[1], joints[0, order] * flip, atol=2e-3, rtol=0)


def test_bent_knee_keeps_its_volume(bodies):
    """No candy wrapper: the girth above and below a bent knee stays, and the knee does not collapse."""
    body = bodies["full"]
    pose = torch.zeros(2, 24, 3)
    pose[1, 4, 0] = 1.6
    output = body(roma.rotvec_to_rotmat(pose), torch.zeros(1, 10))
    near = (output.vertices[0] - output.joints[0, 4]).norm(dim=-1) < 0.07
    spread = [(output.vertices[i, near] - output.vertices[i, near].mean(0)).norm(dim=-1).mean() for i in (0, 1)]
    assert spread[1] > 0.75 * spread[0]


def test_gradients_reach_pose_shape_and_translation(bodies):
    pose = torch.eye(3).expand(2, 24, 3, 3).clone().requires_grad_()
    betas, transl = torch.zeros(2, 10, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    output = bodies["small"](pose, betas, transl)
    (output.vertices.square().sum() + output.joints.sum()).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (pose, betas, transl))
    assert not list(bodies["small"].parameters())


def test_bad_input(bodies, tmp_path):
    body = bodies["small"]
    pose = torch.eye(3).expand(2, 24, 3, 3)
    with pytest.raises(InputError, match=r"pose_rotmat.*\(2, 24, 3\)"):
        body(torch.zeros(2, 24, 3), torch.zeros(2, 10))
    with pytest.raises(InputError, match="betas"):
        body(pose, torch.zeros(3, 10))
    with pytest.raises(InputError, match="transl"):
        body(pose, torch.zeros(2, 10), torch.zeros(2, 4))
    with pytest.raises(InputError, match="betas"):
        body.rest_joints(torch.zeros(10))
    with pytest.raises(InputError, match="full or small"):
        load_body("anny", "medium")
    with pytest.raises(InputError, match="gender"):
        load_body("anny", gender="male")
    with pytest.raises(FileError):
        read_free_body(tmp_path / "absent.npz")
    damaged = tmp_path / "body.npz"
    damaged.write_bytes((ASSETS / "body_small.npz").read_bytes()[:5000])
    with pytest.raises(FileError):
        read_free_body(damaged)
    np.savez(damaged, format=np.array("posesyn-body-1"), f=np.zeros(3))
    with pytest.raises(FileError, match="lacks arrays"):
        read_free_body(damaged)
    np.savez(damaged, f=np.zeros(3))
    with pytest.raises(FileError, match="not a free body"):
        read_free_body(damaged)


def test_assets_are_small():
    assert (ASSETS / "body_full.npz").stat().st_size + (ASSETS / "body_small.npz").stat().st_size < 2e6
