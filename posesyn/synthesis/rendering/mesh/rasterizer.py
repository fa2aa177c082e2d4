"""A batched z-buffer in pure torch: which triangle is seen at each pixel, where in the triangle and how far away.

Edge functions: Pineda, "A Parallel Algorithm for Polygon Rasterization", SIGGRAPH 1988; 1/z is linear in the image.
Every triangle of every image is expanded into the pixels of its box in one ragged list, so no loop runs over triangles;
depth and face index are packed into one integer, so that the smallest one per pixel is the nearest triangle and, at
equal depth, the lowest face index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from posesyn.errors import InputError


def clip_near(
    corners: Float[torch.Tensor, "N 3 3"], near: float
) -> tuple[Float[torch.Tensor, "M 3 3"], Int[torch.Tensor, " M"]]:
    """Keeps the parts of triangles with z ≥ ``near`` (Sutherland and Hodgman, CACM 1974, for one plane).

    Corners in the camera frame → triangles with the orientation of their sources, and the source of each.
    """
    front = corners[..., 2] >= near
    count = front.sum(1)
    index = torch.arange(len(corners), device=corners.device)
    whole = count == 3
    parts, sources = [corners[whole]], [index[whole]]
    # One corner in front: turn it to the first place, and cut both edges that leave it.
    one = count == 1
    if bool(one.any()):
        a, b, c = _turned(corners[one], front[one].long().argmax(1))
        parts.append(torch.stack([a, _cut(a, b, near), _cut(a, c, near)], 1))
        sources.append(index[one])
    # Two corners in front: turn the hidden one to the first place; a quadrilateral remains.
    two = count == 2
    if bool(two.any()):
        a, b, c = _turned(corners[two], (~front[two]).long().argmax(1))
        ab, ac = _cut(b, a, near), _cut(c, a, near)
        parts += [torch.stack([ab, b, c], 1), torch.stack([ab, c, ac], 1)]
        sources += [index[two], index[two]]
    return torch.cat(parts), torch.cat(sources)


def _turned(corners: torch.Tensor, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.arange(len(corners), device=corners.device)
    return corners[rows, first], corners[rows, (first + 1) % 3], corners[rows, (first + 2) % 3]


def _cut(inner: torch.Tensor, outer: torch.Tensor, near: float) -> torch.Tensor:
    """The point at z = near between a corner in front of it and one behind it."""
    share = (inner[:, 2:] - near) / (inner[:, 2:] - outer[:, 2:])
    point = inner + share * (outer - inner)
    point[:, 2] = near
    return point


EMPTY = torch.iinfo(torch.int64).max
# Our own choices: above the float32 rounding of the box (px) and of barycentric coordinates, so that triangles that
# share an edge leave no crack between them.
BOX_TOLERANCE = 1e-4
EDGE_TOLERANCE = 1e-5
MAX_CANDIDATES = 250_000  # own choice: pixels tried in one pass, so that its arrays stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Fragments:
    """What is seen at each pixel."""

    face_index: torch.Tensor  #: (B, H, W) int64, -1 where nothing is seen
    depth: torch.Tensor  #: (B, H, W) float32 camera z in metres, 0 where nothing is seen

    @property
    def mask(self) -> torch.Tensor:
        """(B, H, W) bool, where a triangle is seen."""
        return self.face_index >= 0


def rasterize(
    vertices_cam: Float[torch.Tensor, "B V 3"],
    faces: Int[torch.Tensor, "F 3"] | np.ndarray,
    intrinsics: Float[torch.Tensor, "B 3 3"],
    image_size: tuple[int, int],
    *,
    near: float = 0.05,
    cull_back_faces: bool = False,
) -> Fragments:
    """Finds the nearest triangle at each pixel centre (integer coordinates).

    Args:
        vertices_cam: (B, V, 3) metres, OpenCV camera frame.
        faces: (F, 3) vertex indices.
        intrinsics: (B, 3, 3) pinhole matrices without skew.
        image_size: (height, width) in pixels.
        near: Triangles are clipped at this depth in metres.
        cull_back_faces: Skip triangles whose outside (counter-clockwise seen from outside) faces away; halves the
            work for closed bodies.

    Returns:
        Fragments of shape (B, H, W). Equal depths go to the lower face index, so results do not depend on the order of
        the work.

    Raises:
        InputError: Wrong shapes, faces that point outside the vertices, or vertices that are not finite.
    """
    faces = torch.as_tensor(faces, device=vertices_cam.device).long()
    height, width = image_size
    _check(vertices_cam, faces, intrinsics, image_size)
    batch = len(vertices_cam)
    zbuffer = torch.full((batch * height * width,), EMPTY, dtype=torch.int64, device=vertices_cam.device)
    corners, owner, face = _screen_corners(vertices_cam.float(), faces, intrinsics.float(), near)
    if len(face):
        _fill(zbuffer, _setup(corners, owner, face, image_size, cull_back_faces), image_size)
    seen = zbuffer != EMPTY
    face_index = torch.where(seen, zbuffer & 0xFFFFFFFF, -1)
    depth = torch.where(seen, zbuffer >> 32, 0).to(torch.int32).view(torch.float32)
    shape = (batch, height, width)
    return Fragments(face_index.view(shape), depth.view(shape))


def barycentrics(
    fragments: Fragments,
    vertices_cam: Float[torch.Tensor, "B V 3"],
    faces: Int[torch.Tensor, "F 3"] | np.ndarray,
    intrinsics: Float[torch.Tensor, "B 3 3"],
) -> tuple[Int[torch.Tensor, " N"], Float[torch.Tensor, "N 3"]]:
    """Perspective-correct barycentric coordinates of the seen pixels, by cutting the pixel's ray with the triangle.

    Returns:
        Flat pixel indices (N,) into (B, H, W) and weights (N, 3) of the three corners, non-negative, summing to 1.
    """
    faces = torch.as_tensor(faces, device=vertices_cam.device).long()
    _, height, width = fragments.face_index.shape
    flat = fragments.face_index.view(-1)
    where = torch.nonzero(flat >= 0)[:, 0]
    image = torch.div(where, height * width, rounding_mode="floor")
    y, x = _row_and_column(where - image * (height * width), width)
    # The ray through the pixel, with z = 1.
    ray_x = (x - intrinsics[:, 0, 2][image]) / intrinsics[:, 0, 0][image]
    ray_y = (y - intrinsics[:, 1, 2][image]) / intrinsics[:, 1, 1][image]
    # Moved along the ray into the plane z = 0, a corner keeps only its offset from the ray; the offsets are of the size
    # of the triangle, so that float32 loses nothing in the products.
    offsets = []
    points = vertices_cam.reshape(-1, 3)
    corner_faces, start = faces[flat[where]], image * vertices_cam.shape[1]
    for corner in range(3):
        point = points[corner_faces[:, corner] + start]
        depth = point[:, 2]
        offsets.append((point[:, 0] - ray_x * depth, point[:, 1] - ray_y * depth))
    (ax, ay), (bx, by), (cx, cy) = offsets
    weights = torch.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], 1)
    total = weights.sum(-1, keepdim=True)
    weights = torch.where(total.abs() > 0, weights / total, 1 / 3)
    weights = weights.clamp(0, 1)  # a pixel on an edge may lie outside by the rounding of the fill
    return where, weights / weights.sum(-1, keepdim=True)


def interpolate(
    values: Float[torch.Tensor, "R C"], corner_rows: Int[torch.Tensor, "N 3"], weights: Float[torch.Tensor, "N 3"]
) -> Float[torch.Tensor, "N C"]:
    """Values at surface points: rows of the three corners, weighted."""
    total = values[corner_rows[:, 0]] * weights[:, :1]
    total += values[corner_rows[:, 1]] * weights[:, 1:2]
    total += values[corner_rows[:, 2]] * weights[:, 2:]
    return total


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Set-up triangles: box in pixels; 1/z and two barycentric coordinates as planes over the box (value at its
    origin, change per pixel in x and in y). One contiguous (N,) tensor each."""

    left: torch.Tensor
    top: torch.Tensor
    columns: torch.Tensor
    rows: torch.Tensor
    first: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    second: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    disparity: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    owner: torch.Tensor
    face: torch.Tensor


def _check(vertices: torch.Tensor, faces: torch.Tensor, intrinsics: torch.Tensor, image_size) -> None:
    where = "rasterize()"
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        got = tuple(vertices.shape)
        raise InputError("vertices_cam has the wrong shape", where=where, expected="(B, V, 3)", got=got)
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise InputError("faces has the wrong shape", where=where, expected="(F, 3)", got=tuple(faces.shape))
    if intrinsics.shape != (len(vertices), 3, 3):
        wanted, got = (len(vertices), 3, 3), tuple(intrinsics.shape)
        raise InputError("intrinsics has the wrong shape", where=where, expected=wanted, got=got)
    if len(image_size) != 2 or min(image_size) < 1 or max(image_size) > 8192:
        raise InputError("image_size must be (height, width)", where=where, expected="1 to 8192 px", got=image_size)
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= vertices.shape[1]):
        wanted, got = f"0 to {vertices.shape[1] - 1}", f"{int(faces.min())} to {int(faces.max())}"
        raise InputError("faces point outside the vertices", where=where, expected=wanted, got=got)
    if not bool(torch.isfinite(vertices).all()):
        raise InputError("vertices_cam has NaN or infinite values", where=where)


def _screen_corners(vertices: torch.Tensor, faces: torch.Tensor, intrinsics: torch.Tensor, near: float):
    """Corners of all triangles in front of the near plane as three (x px, y px, 1/z) triples of (N,) tensors, with the
    image and the face of each triangle."""
    batch, count = vertices.shape[:2]
    owner = torch.arange(batch, device=vertices.device).repeat_interleave(len(faces))
    face = torch.arange(len(faces), device=vertices.device).repeat(batch)
    index = (faces + (torch.arange(batch, device=vertices.device) * count)[:, None, None]).view(-1, 3)
    if float(vertices[..., 2].min()) >= near:
        projected = [value.reshape(-1) for value in _project(vertices, intrinsics[:, None])]
        return [[value[index[:, i]] for value in projected] for i in range(3)], owner, face
    corners, source = clip_near(vertices.reshape(-1, 3)[index], near)
    owner, face = owner[source], face[source]
    projected = _project(corners, intrinsics[owner][:, None])
    return [[value[:, i].contiguous() for value in projected] for i in range(3)], owner, face


def _project(points: torch.Tensor, intrinsics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(..., 3) camera points → x and y in pixels, and 1/z."""
    inverse = 1 / points[..., 2]
    x = points[..., 0] * inverse * intrinsics[..., 0, 0] + intrinsics[..., 0, 2]
    y = points[..., 1] * inverse * intrinsics[..., 1, 1] + intrinsics[..., 1, 2]
    return x, y, inverse


def _setup(corners, owner, face, image_size, cull_back_faces) -> _Triangles:
    height, width = image_size
    (ax, ay, _), (bx, by, _), (cx, cy, _) = corners
    left, right = _pixel_range(ax, bx, cx, width)
    top, bottom = _pixel_range(ay, by, cy, height)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    # y points down, so that an outward counter-clockwise triangle has a negative area on the image.
    kept = (right >= left) & (bottom >= top) & ((area < 0) if cull_back_faces else (area != 0))
    kept = torch.nonzero(kept)[:, 0]
    left, right, top, bottom, area = (value[kept] for value in (left, right, top, bottom, area))
    # Everything relative to the box: far from the image's origin the products of an edge function cancel in float32.
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = ((x[kept] - left, y[kept] - top, z[kept]) for x, y, z in corners)
    first = ((bx * cy - by * cx) / area, (by - cy) / area, (cx - bx) / area)
    second = ((cx * ay - cy * ax) / area, (cy - ay) / area, (ax - cx) / area)
    steps = [(az - cz) * a + (bz - cz) * b for a, b in zip(first, second)]
    disparity = (steps[0] + cz, steps[1], steps[2])
    columns, rows = (right - left + 1).long(), (bottom - top + 1).long()
    return _Triangles(left.long(), top.long(), columns, rows, first, second, disparity, owner[kept], face[kept])


def _pixel_range(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last pixel centre within the three coordinates, inside the image."""
    low = torch.minimum(torch.minimum(a, b), c) - BOX_TOLERANCE
    high = torch.maximum(torch.maximum(a, b), c) + BOX_TOLERANCE
    # Clamped before rounding, so that far-away corners cannot overflow an integer.
    return torch.ceil(low).clamp(0, size), torch.floor(high).clamp(-1, size - 1)


def _fill(zbuffer: torch.Tensor, triangles: _Triangles, image_size: tuple[int, int]) -> None:
    """Enters the triangles, in passes of bounded size."""
    counts = triangles.columns * triangles.rows
    ends = torch.cumsum(counts, 0)
    done, start = 0, 0
    while start < len(counts):
        stop = int(torch.searchsorted(ends, done + MAX_CANDIDATES, right=True))
        stop = max(stop, start + 1)  # one triangle never exceeds the image
        _fill_some(zbuffer, triangles, counts[start:stop], slice(start, stop), image_size)
        done, start = int(ends[stop - 1]), stop


def _fill_some(zbuffer, triangles: _Triangles, counts, rows: slice, image_size) -> None:
    height, width = image_size
    which = torch.repeat_interleave(counts)
    begin = torch.cumsum(counts, 0) - counts
    position = torch.arange(len(which), device=which.device) - begin[which]
    dy, dx = _row_and_column(position, triangles.columns[rows][which])
    a = _plane(triangles.first, rows, which, dx, dy)
    b = _plane(triangles.second, rows, which, dx, dy)
    inside = torch.minimum(torch.minimum(a, b), 1 - a - b) >= -EDGE_TOLERANCE
    hit = torch.nonzero(inside)[:, 0]
    which, dx, dy = which[hit], dx[hit], dy[hit]
    inverse = _plane(triangles.disparity, rows, which, dx, dy).clamp_min(1e-9)
    key = ((1 / inverse).view(torch.int32).long() << 32) | triangles.face[rows][which]
    row = triangles.owner[rows][which] * height + triangles.top[rows][which] + dy.long()
    zbuffer.scatter_reduce_(0, row * width + triangles.left[rows][which] + dx.long(), key, "amin")


def _plane(plane, rows: slice, which: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    origin, step_x, step_y = (term[rows][which] for term in plane)
    return origin + step_x * dx + step_y * dy


def _row_and_column(position: torch.Tensor, width: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits a running index over a box; float, since integer division is many times slower. Exact up to 2**40."""
    row = torch.floor((position.double() + 0.5) / width)
    column = position - row * width
    return row.float(), column.float()


def halved(layer: Float[torch.Tensor, "T H2 W2 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """Mean of four samples."""
    return 0.25 * (layer[:, ::2, ::2] + layer[:, 1::2, ::2] + layer[:, ::2, 1::2] + layer[:, 1::2, 1::2])


def feathered(layer: Float[torch.Tensor, "T H W 4"]) -> Float[torch.Tensor, "T H W 4"]:
    """Softens the silhouette of colours and coverage (0 outside) by one pixel, in place; the inside stays sharp."""
    width = layer.shape[2]
    padded = torch.nn.functional.pad(layer[..., 3].to(torch.uint8), (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    count = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    rim = (count > 0) & (count < 9)
    rim[:, [0, -1]] = False
    rim[:, :, [0, -1]] = False
    index = torch.nonzero(rim.view(-1))[:, 0]
    flat = layer.view(-1, 4)
    soft = layer.new_zeros(len(index), 4)
    weights = (0.2, 0.6, 0.2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            soft += weights[down + 1] * weights[right + 1] * flat[index + down * width + right]
    flat[index] = soft
    return layer
