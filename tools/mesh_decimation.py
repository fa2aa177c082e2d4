"""Half-edge collapse with quadric errors: a coarse mesh whose vertices are a subset of the fine one's.

The error is that of Garland and Heckbert, "Surface simplification using quadric error metrics" (SIGGRAPH 1997),
with the target placed at one end of the edge, so that every attribute of a kept vertex stays what it was.
"""

from __future__ import annotations

import heapq

import numpy as np

# Our own choice, by looking at renders of bent knees and hands.
LENGTH_COST, BEND_COST = 2e-6, 2e-2


def _quadrics(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 4, 4): area-weighted squared distance to the planes of the faces around each vertex."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / np.maximum(area, 1e-12)
    plane = np.concatenate([normal, -(normal * a).sum(1, keepdims=True)], 1)
    outer = plane[:, :, None] * plane[:, None, :] * area[:, :, None]
    quadrics = np.zeros((len(vertices), 4, 4))
    for corner in range(3):
        np.add.at(quadrics, faces[:, corner], outer)
    return quadrics


def collapse_edges(
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    uv_faces: np.ndarray,
    weights: np.ndarray,
    target: int,
    locked: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collapses edges until ``target`` vertices are left.

    Args:
        vertices: (V, 3). faces: (F, 3). uv: (Vt, 2). uv_faces: (F, 3) texture index of each corner.
        weights: (V, J) skinning weights; where they change, as around a knee, rings of vertices survive.
        target: Number of vertices to keep.
        locked: Indices of vertices that must stay.

    Returns:
        Kept vertices (target,), faces over them (F', 3) and texture index of each corner (F', 3).
    """
    faces, uv_faces = faces.copy(), uv_faces.copy()
    quadrics = _quadrics(vertices, faces)
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], 1)
    alive = np.ones(len(faces), bool)
    around: list[set[int]] = [set() for _ in vertices]
    for index, face in enumerate(faces):
        for v in face:
            around[v].add(index)
    kept = np.array([bool(s) for s in around])
    fixed = np.zeros(len(vertices), bool)
    fixed[locked] = True

    def neighbours(v: int) -> set[int]:
        return {int(w) for f in around[v] for w in faces[f]} - {v}

    def cost(u: int, v: int) -> float:
        q = quadrics[u] + quadrics[v]
        length = float(((vertices[u] - vertices[v]) ** 2).sum())
        # Even edges, and a displacement of (change of weight) x (edge) when a joint bends, over the area of the edge.
        bend = float(np.abs(weights[u] - weights[v]).sum()) ** 2
        return float(homogeneous[v] @ q @ homogeneous[v]) + length * (LENGTH_COST + BEND_COST * bend * length)

    def flips(u: int, v: int) -> bool:
        for f in around[u] - around[v]:
            before = vertices[faces[f]]
            after = vertices[np.where(faces[f] == u, v, faces[f])]
            n0 = np.cross(before[1] - before[0], before[2] - before[0])
            n1 = np.cross(after[1] - after[0], after[2] - after[0])
            if n0 @ n1 < 0.2 * np.linalg.norm(n0) * np.linalg.norm(n1) + 1e-14:
                return True
        return False

    version = np.zeros(len(vertices), np.int64)
    heap: list[tuple[float, int, int, int, int]] = []

    def push(u: int, v: int) -> None:
        if not fixed[u]:
            heapq.heappush(heap, (cost(u, v), u, v, int(version[u]), int(version[v])))

    for u in np.flatnonzero(kept):
        for v in neighbours(u):
            push(int(u), v)
    count = int(kept.sum())
    while count > target and heap:
        _, u, v, version_u, version_v = heapq.heappop(heap)
        if not kept[u] or not kept[v] or version[u] != version_u or version[v] != version_v:
            continue
        shared = around[u] & around[v]
        # The link condition keeps the surface a manifold: u and v may share only the tips of their common faces.
        if len(neighbours(u) & neighbours(v)) != len(shared) or len(shared) == 0 or flips(u, v):
            continue
        texture = {int(uv_faces[f][faces[f] == u][0]): int(uv_faces[f][faces[f] == v][0]) for f in shared}
        choices = np.array([uv_faces[f][faces[f] == v][0] for f in around[v]])
        for f in shared:
            alive[f] = False
            for w in faces[f]:
                around[w].discard(f)
        for f in around[u]:
            corner = int(np.flatnonzero(faces[f] == u)[0])
            old = int(uv_faces[f, corner])
            nearest = choices[np.linalg.norm(uv[choices] - uv[old], axis=1).argmin()]
            uv_faces[f, corner] = texture.get(old, nearest)
            faces[f, corner] = v
            around[v].add(f)
        around[u].clear()
        kept[u] = False
        quadrics[v] += quadrics[u]
        count -= 1
        version[v] += 1
        for w in neighbours(v):
            push(v, w)
            push(w, v)
    index = np.cumsum(kept) - 1
    return np.flatnonzero(kept), index[faces[alive]], uv_faces[alive]
