from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.synthesis.rendering.mesh.shading import GroundShadow, VertexNormals, _surround, sample_lighting
from posesyn.synthesis.rendering.view import CameraPath


def sphere(rings=24, sectors=32):
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, rings), np.linspace(0, 2 * np.pi, sectors, endpoint=False), indexing="ij"
    )
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    faces = []
    for ring in range(rings - 1):
        for sector in range(sectors):
            a, b = ring * sectors + sector, ring * sectors + (sector + 1) % sectors
            faces += [(a, b, a + sectors), (b, b + sectors, a + sectors)]
    return points.astype(np.float32), np.array(faces)


def test_normals_of_a_sphere_point_outwards_and_do_not_depend_on_the_batch():
    points, faces = sphere()
    vertices = torch.from_numpy(points)[None].repeat(3, 1, 1) * torch.tensor([1.0, 2.0, 0.3])[:, None, None]
    normals = VertexNormals(faces, len(points))(vertices)
    inner = np.abs(points[:, 1]) < 0.95  # the rims of the open poles see one side only
    cosine = (normals.numpy() * points).sum(-1)[:, inner]
    assert cosine.min() > 0.99
    assert torch.equal(VertexNormals(faces, len(points))(vertices[1:2])[0], normals[1])


def test_soft_light_equals_the_analytic_lobe():
    # Clamped cosine in Legendre terms up to order 2 (Ramamoorthi and Hanrahan 2001, section 3):
    # E(cos) = (1 + 2 cos + 5/8 (3 cos² - 1)) / 4.
    towards = np.array([2.0, -1.0, 0.5]) / np.linalg.norm([2.0, -1.0, 0.5])
    rows = _surround([(towards, np.array([1.0, 0.5, 0.0]))])
    normals = np.random.default_rng(1).normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    x, y, z = normals.T
    terms = np.stack([np.ones(50), x, y, z, x * x - y * y, z * z, x * y, x * z, y * z], 1)
    cosine = normals @ towards
    wanted = (1 + 2 * cosine + 5 / 8 * (3 * cosine**2 - 1)) / 4
    np.testing.assert_allclose(terms @ rows, wanted[:, None] * [1.0, 0.5, 0.0], atol=1e-4)


def test_light_comes_from_the_lamp_and_nothing_is_black(rng):
    for style in ("lab", "wild"):
        for _ in range(20):
            light = sample_lighting(rng, style, yaw=0.7)
            towards = torch.tensor(light.lamp_direction, dtype=torch.float32)
            up = light.irradiance(torch.stack([towards, -towards]))
            assert (up[0] > up[1]).all()
            normals = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.manual_seed(0)), dim=1)
            seen = light.irradiance(normals)
            assert float(seen.min()) > 0 and 0.2 < float(seen.mean()) < 1.2
    with pytest.raises(InputError, match="style"):
        sample_lighting(rng, "noir")


def from_above() -> CameraPath:
    """Looks straight down from 4 m: image x is world x, image y is world z."""
    rotation = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
    eye = np.array([0.0, 4, 0])
    matrix = np.array([[60.0, 0, 40], [0, 60, 40], [0, 0, 1]], np.float32)
    return CameraPath(rotation, -(rotation @ eye)[None].astype(np.float32), matrix, 0.0, np.pi / 2)


def pole(rng):
    """A thin vertical ribbon of points from the floor to 1.5 m, with a triangle between each three neighbours."""
    points = np.stack([rng.normal(0, 0.05, 400), np.sort(rng.uniform(0, 1.5, 400)), rng.normal(0, 0.05, 400)], 1)
    faces = np.stack([np.arange(398), np.arange(1, 399), np.arange(2, 400)], 1)
    return points.astype(np.float32), faces


def test_shadow_falls_away_from_the_lamp_and_is_darkest_at_the_foot(rng):
    points, faces = pole(rng)
    lamp = np.array([-1.0, 1.5, 0]) / np.linalg.norm([-1.0, 1.5, 0])
    shadow = GroundShadow(points, faces, from_above(), 0.0, (81, 81), lamp, 0.6)
    light = shadow(torch.from_numpy(points)[None], slice(0, 1))[0].numpy()
    assert light.max() == 1 and light.min() > 0
    assert light[40, 40] < 0.6
    assert light[38:43, 41:56].min(0).max() < 0.85  # towards +x, up to 1 m
    assert light[38:43, 20:34].min() > 0.95
    assert light[:20].min() == 1 and light[60:].min() == 1


def test_a_jump_takes_the_dark_contact_away(rng):
    points, faces = pole(rng)
    up = np.array([0.0, 1, 0])
    shadow = GroundShadow(points, faces, from_above(), 0.0, (81, 81), up, 0.5)
    both = torch.from_numpy(np.stack([points, points + np.float32([0, 1, 0])]))
    camera_frames = slice(0, 1)
    standing = shadow(both[:1], camera_frames)[0, 40, 40]
    jumping = shadow(both[1:], camera_frames)[0, 40, 40]
    assert float(jumping) > float(standing) + 0.1


def test_hidden_floor_gets_no_shadow(rng):
    points, faces = pole(rng)
    nowhere = np.zeros((81, 81), bool)
    shadow = GroundShadow(points, faces, from_above(), 0.0, (81, 81), np.array([0.0, 1, 0]), 0.5, nowhere)
    assert (shadow(torch.from_numpy(points)[None], slice(0, 1)) == 1).all()
