from __future__ import annotations

import numpy as np
import torch

from posesyn.synthesis.rendering.mesh.shading import GroundShadow
from posesyn.synthesis.rendering.view import CameraPath


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
