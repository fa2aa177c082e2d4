"""The z-buffer against a float64 loop over pixels and triangles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.synthesis.rendering.mesh.rasterizer import barycentrics, rasterize

SIZE = (40, 52)
CAMERA = np.array([[60.0, 0, 25.3], [0, 58.0, 19.1], [0, 0, 1]])


def loop(vertices, faces, camera, size, near=0.05):
    """Oracle: cuts each pixel's ray with each triangle in float64. Returns depth, face and the distance of the nearest
    decision to a tie (smallest barycentric margin of any triangle near the pixel, or depth gap to the runner-up)."""
    height, width = size
    depth, face = np.full(size, np.inf), np.full(size, -1)
    doubt = np.full(size, np.inf)
    inverse = np.linalg.inv(camera)
    for y in range(height):
        for x in range(width):
            ray = inverse @ np.array([x, y, 1.0])
            a, b, c = (vertices[faces[:, i]].astype(float) for i in range(3))
            weights = np.stack([np.cross(b, c) @ ray, np.cross(c, a) @ ray, np.cross(a, b) @ ray], 1)
            total = weights.sum(1)
            with np.errstate(all="ignore"):
                share = weights / total[:, None]
                z = np.einsum("fi,fi->f", share, np.stack([a[:, 2], b[:, 2], c[:, 2]], 1))
            inside = (share >= 0).all(1) & (z >= near)
            margin = np.abs(np.min(share, 1))
            margin = np.where(z > near - 0.01, margin, np.inf)
            candidates = np.where(inside, z, np.inf)
            if np.isfinite(candidates).any():
                best = int(np.argmin(candidates))
                depth[y, x], face[y, x] = candidates[best], best
                others = np.delete(candidates, best)
                if len(others):
                    doubt[y, x] = others.min() - candidates[best]
            near_or_behind = np.where(z <= depth[y, x] + 1e-4, margin, np.inf)
            doubt[y, x] = min(doubt[y, x], near_or_behind.min(), np.abs(z[(share >= 0).all(1)] - near).min(initial=9))
    return depth, face, doubt


def compare(vertices, faces, camera=CAMERA, size=SIZE, **options):
    fragments = rasterize(
        torch.tensor(vertices, dtype=torch.float32)[None], faces, torch.tensor(camera)[None].float(), size, **options
    )
    depth, face, doubt = loop(vertices.astype(np.float32), faces, camera, size, options.get("near", 0.05))
    got_face, got_depth = fragments.face_index[0].numpy(), fragments.depth[0].numpy()
    sure = doubt > 1e-4
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(got_face[sure], face[sure])
    seen = sure & (face >= 0)
    np.testing.assert_allclose(got_depth[seen], depth[seen], rtol=2e-5)
    assert (got_depth[got_face < 0] == 0).all()
    return fragments, seen


def random_mesh(rng, triangles, spread):
    centre = np.stack(
        [rng.uniform(-1.6, 1.6, triangles), rng.uniform(-1.2, 1.2, triangles), rng.uniform(1.5, 5, triangles)], 1
    )
    vertices = (centre[:, None] + rng.normal(0, spread, (triangles, 3, 3))).reshape(-1, 3)
    return vertices, np.arange(3 * triangles).reshape(-1, 3)


@pytest.mark.parametrize(("triangles", "spread"), [(200, 0.05), (60, 0.4), (12, 1.5)])
def test_equals_the_loop_on_random_meshes(rng, triangles, spread):
    vertices, faces = random_mesh(rng, triangles, spread)
    vertices[:, 2] = np.maximum(vertices[:, 2], 0.3)
    compare(vertices, faces)


def test_equals_the_loop_when_triangles_cross_the_near_plane(rng):
    vertices, faces = random_mesh(rng, 40, 2.0)
    vertices[:, 2] -= 2.0
    assert (vertices[:, 2] < 0).any()
    compare(vertices, faces, near=0.2)


def test_far_from_the_origin_of_a_large_image_tiny_triangles_keep_their_depth():
    camera = np.array([[4000.0, 0, 2000], [0, 4000, 1500], [0, 0, 1]])
    vertices = np.array([[1.9993, 1.4993, 4.0], [2.0009, 1.4993, 4.4], [2.0001, 1.5009, 4.2]])
    vertices[:, :2] *= vertices[:, 2:] / 4
    fragments = rasterize(
        torch.tensor(vertices, dtype=torch.float32)[None],
        np.array([[0, 1, 2]]),
        torch.tensor(camera, dtype=torch.float32)[None],
        (3200, 4100),
    )
    seen = fragments.depth[fragments.mask]
    assert len(seen) == 2 or len(seen) == 1
    assert ((seen > 4.0) & (seen < 4.4)).all()


def test_barycentrics_are_perspective_correct(rng):
    vertices, faces = random_mesh(rng, 60, 0.4)
    vertices[:, 2] = np.maximum(vertices[:, 2], 0.3)
    fragments, seen = compare(vertices, faces)
    tensor = torch.tensor(vertices, dtype=torch.float32)[None]
    where, weights = barycentrics(fragments, tensor, faces, torch.tensor(CAMERA)[None])
    points = np.einsum("ni,nij->nj", weights.numpy(), vertices[faces[fragments.face_index.view(-1)[where]]])
    pixels = points[:, :2] / points[:, 2:] * [60.0, 58.0] + [25.3, 19.1]
    truth = np.stack([where.numpy() % SIZE[1], where.numpy() // SIZE[1]], 1)
    sure = seen.reshape(-1)[where.numpy()]
    np.testing.assert_allclose(pixels[sure], truth[sure], atol=2e-3)
    np.testing.assert_allclose(points[sure, 2], fragments.depth.view(-1)[where][sure], rtol=1e-4)


def test_grid_on_pixel_centres_leaves_no_crack_and_ties_go_to_the_lower_face():
    xs, ys = np.meshgrid(np.arange(0, 41, 4), np.arange(0, 41, 4))
    vertices = np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, 3.0)], 1).astype(np.float32)
    vertices[:, :2] = (vertices[:, :2] - 20) / 37.3 * 3
    camera = torch.tensor([[37.3, 0, 20], [0, 37.3, 20], [0, 0, 1]])[None]
    quads = [(r * 11 + c, r * 11 + c + 1, r * 11 + c + 12, r * 11 + c + 11) for r in range(10) for c in range(10)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    mesh = torch.tensor(vertices)[None]
    single = rasterize(mesh, faces, camera, (41, 41))
    assert single.mask.all()
    doubled = rasterize(mesh, np.concatenate([faces, faces]), camera, (41, 41))
    assert int(doubled.face_index.max()) < len(faces)


def test_batches_and_passes_do_not_change_a_bit(rng, monkeypatch):
    vertices, faces = random_mesh(rng, 80, 0.3)
    vertices[:, 2] = np.maximum(vertices[:, 2], 0.3)
    several = torch.tensor(np.stack([vertices, vertices[::-1].copy(), vertices + 0.1]), dtype=torch.float32)
    cameras = torch.tensor(CAMERA, dtype=torch.float32).expand(3, 3, 3)
    together = rasterize(several, faces, cameras, SIZE)
    monkeypatch.setattr("posesyn.synthesis.rendering.mesh.rasterizer.MAX_CANDIDATES", 50)
    for i in range(3):
        alone = rasterize(several[i : i + 1], faces, cameras[:1], SIZE)
        assert torch.equal(alone.face_index[0], together.face_index[i])
        assert torch.equal(alone.depth[0], together.depth[i])


def test_back_faces_are_those_whose_outside_faces_away():
    # Seen from the camera (y down) the corners run counter-clockwise on the picture when y is drawn up.
    triangle = torch.tensor([[[-1.0, 1, 3], [1, 1, 3], [0, -1, 3]]])
    camera = torch.tensor(CAMERA, dtype=torch.float32)[None]
    facing, away = np.array([[0, 1, 2]]), np.array([[0, 2, 1]])
    assert rasterize(triangle, facing, camera, SIZE, cull_back_faces=True).mask.any()
    assert not rasterize(triangle, away, camera, SIZE, cull_back_faces=True).mask.any()
    assert rasterize(triangle, away, camera, SIZE).mask.any()


def test_nothing_in_front_gives_an_empty_image():
    behind = torch.tensor([[[-1.0, 1, -3], [1, 1, -3], [0, -1, -3]]])
    camera = torch.tensor(CAMERA, dtype=torch.float32)[None]
    assert not rasterize(behind, np.array([[0, 1, 2]]), camera, SIZE).mask.any()
    assert not rasterize(behind, np.zeros((0, 3), int), camera, SIZE).mask.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices_cam": torch.zeros(4, 3)}, "vertices_cam"),
        ({"vertices_cam": torch.full((1, 3, 3), float("nan"))}, "NaN"),
        ({"faces": np.array([[0, 1, 7]])}, "outside the vertices"),
        ({"faces": np.array([[0, 1]])}, "faces"),
        ({"intrinsics": torch.eye(3)}, "intrinsics"),
        ({"image_size": (0, 4)}, "image_size"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "vertices_cam": torch.ones(1, 3, 3),
        "faces": np.array([[0, 1, 2]]),
        "intrinsics": torch.eye(3)[None],
        "image_size": (4, 4),
    } | change
    with pytest.raises(InputError, match=message):
        rasterize(**arguments)
