"""Joint positions → SMPL rotations: an analytic start over all frames at once, then a few damped least-squares steps.

Positions leave twist about single-child bones open. It is taken from what moves with it: the bend of elbow and knee,
the heading of the foot; over time it is a weighted running mean, so a straight arm keeps the twist of the frames
around it. Design and constants are our own choice. Head, hands and toes have no child among the 22 joints and follow
their parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor

from posesyn.body.files import NUM_BETAS, smpl_parents
from posesyn.body.model import Body
from posesyn.errors import InputError
from posesyn.geometry import kinematics, rotations
from posesyn.geometry.devices import exact_device, resolve_device

NUM_POSITIONS = 22
PELVIS, SPINE1, SPINE2, CHEST, NECK, HEAD = 0, 3, 6, 9, 12, 15
CHEST_CHILDREN = (12, 13, 14, 16, 17)
# First joint, hinge joint, end of each limb; rest direction of the hinge axis when the limb bends the natural way.
ARMS = ((16, 18, 20, (0.0, -1.0, 0.0)), (17, 19, 21, (0.0, 1.0, 0.0)))
LEGS = ((1, 4, 7, (1.0, 0.0, 0.0)), (2, 5, 8, (1.0, 0.0, 0.0)))
TURNING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17, 18, 19)
# Square metres per square radian by which leaving the analytic start counts. Stiff where several bones share a joint
# or are short: there differing bone lengths would otherwise cause rotations that no joint position shows.
STIFF, LOOSE = 1e-3, 2e-4
STIFF_JOINTS = frozenset((PELVIS, SPINE1, SPINE2, CHEST, NECK, 13, 14))
FIRST_DAMPING = 1e-3  # of the refinement, square metres per square radian
MIN_BEND = 0.05  # weight of "no twist" against the sine of the elbow or knee angle
FOOT_EVIDENCE = 0.3  # weight of the foot's heading against the sine of the knee angle


class PoseFit(NamedTuple):
    """pose_rotvec (T, 24, 3) local SMPL rotations, transl (T, 3) metres, betas (10,), float32 NumPy."""

    pose_rotvec: np.ndarray
    transl: np.ndarray
    betas: np.ndarray


def fit_pose(
    joints_world: np.ndarray | Tensor,
    body: Body,
    betas: np.ndarray | None = None,
    *,
    fit_betas: bool = False,
    weights: np.ndarray | None = None,
    iterations: int = 6,
    twist_smoothing: float = 2.0,
    device: str | torch.device = "cpu",
) -> PoseFit:
    """Finds the SMPL motion whose joints are nearest to the given ones.

    Args:
        joints_world: (T, 22, 3) in the order ``humanml3d22``, metres, y up. Scale a foreign skeleton first, see
            :func:`body_scale`.
        body: The body to move.
        betas: (10,) shape; the mean body if None. With ``fit_betas`` it is where the fit starts.
        fit_betas: Choose the shape whose bone lengths match best, one for all frames.
        weights: (22,) importance of each joint, 1 if None; 0 ignores a joint in the refinement.
        iterations: Levenberg-Marquardt steps; 0 keeps the directions of the bones and lets differing lengths add up.
        twist_smoothing: Standard deviation in frames of the running mean over twists.
        device: Where it is computed, in float64 (on the CPU for Apple's GPUs, which have none).

    Returns:
        Rotations, translation and shape. Hands have identity rotations.

    Raises:
        InputError: Wrong shapes, no frame, NaN or infinite values.
    """
    target = _checked_joints(joints_world).to(exact_device(resolve_device(device)))
    shape = np.zeros(NUM_BETAS) if betas is None else np.asarray(betas, np.float64)
    if shape.shape != (NUM_BETAS,) or not np.isfinite(shape).all():
        raise InputError("betas must be finite", where="fit_pose", expected=f"({NUM_BETAS},)", got=np.shape(betas))
    importance = torch.ones(NUM_POSITIONS, dtype=torch.float64)
    if weights is not None:
        importance = torch.as_tensor(np.asarray(weights, np.float64))
        if importance.shape != (NUM_POSITIONS,) or not bool((importance >= 0).all()):
            raise InputError("weights must be (22,) and not negative", where="fit_pose", got=weights)
    with torch.no_grad():
        if fit_betas:
            shape = _fit_shape(target.cpu(), body, shape)
        rest = _rest_joints(body, shape).to(target.device)
        offsets = kinematics.offsets_from_joints(rest, smpl_parents())
        start = _analytic_rotations(target, offsets, twist_smoothing)
        local = kinematics.global_to_local(start, smpl_parents())
        local, root = refine(local, target, offsets, importance.to(target.device), iterations)
    rotvec = rotations.matrix_to_rotvec(local)
    rotvec[:, NUM_POSITIONS:] = 0.0
    return PoseFit(
        rotvec.cpu().numpy().astype(np.float32),
        (root - rest[0]).cpu().numpy().astype(np.float32),
        shape.astype(np.float32),
    )


def body_scale(joints_world: np.ndarray | Tensor, body: Body, betas: np.ndarray | None = None) -> float:
    """The factor that brings a skeleton to the size of the body: the ratio of summed limb and spine lengths.

    Args:
        joints_world: (T, 22, 3), any unit.
        body: Body to fit to.
        betas: (10,) its shape, the mean body if None.

    Raises:
        InputError: As :func:`fit_pose`, and a skeleton without extent.
    """
    target = _checked_joints(joints_world)
    with torch.no_grad():
        rest = _rest_joints(body, np.zeros(NUM_BETAS) if betas is None else np.asarray(betas, np.float64))
    parents = smpl_parents()
    bones = [4, 5, 7, 8, 18, 19, 20, 21]  # thighs, shins, upper arms, forearms: every skeleton agrees on these
    source = _bone_lengths(target)[bones].sum() + (target[:, NECK] - target[:, PELVIS]).norm(dim=-1).max()
    if source <= 1e-6:
        raise InputError("the skeleton has no extent", where="body_scale", got=float(source))
    own = sum((rest[b] - rest[parents[b]]).norm() for b in bones) + (rest[NECK] - rest[PELVIS]).norm()
    return float(own / source)


def _checked_joints(joints_world: np.ndarray | Tensor) -> Tensor:
    value = joints_world.detach().cpu().numpy() if isinstance(joints_world, Tensor) else np.asarray(joints_world)
    if value.ndim != 3 or value.shape[1:] != (NUM_POSITIONS, 3) or len(value) == 0:
        raise InputError(
            "joints_world has the wrong shape",
            where="inverse kinematics",
            expected="(T, 22, 3) with T >= 1",
            got=value.shape,
            fix="convert the joints to 'humanml3d22' with skeletons.convert",
        )
    bad = np.flatnonzero(~np.isfinite(value).all((1, 2)))
    if len(bad):
        problem, fix = "joints_world has NaN or infinite values", "drop or interpolate these frames"
        raise InputError(problem, where="inverse kinematics", got=f"frames {bad[:5].tolist()}", fix=fix)
    return torch.as_tensor(value, dtype=torch.float64)


def _rest_joints(body: Body, betas: np.ndarray) -> Tensor:
    template, directions = body.joint_template.double().cpu(), body.joint_directions.double().cpu()
    return template + directions @ torch.as_tensor(betas, dtype=torch.float64)


def _bone_lengths(joints: Tensor) -> Tensor:
    """(22,) median over the frames; 0 for the root."""
    above = [max(p, 0) for p in smpl_parents()[:NUM_POSITIONS]]
    return (joints - joints[:, above]).norm(dim=-1).median(0).values


def _fit_shape(target: Tensor, body: Body, start: np.ndarray, noise: float = 0.01) -> np.ndarray:
    """Betas whose bone lengths are nearest to the median ones: maximum a posteriori with standard normal betas and
    lengths known to ``noise`` metres, by Gauss-Newton."""
    parents = smpl_parents()[1:NUM_POSITIONS]
    wanted = _bone_lengths(target)[1:]
    directions = body.joint_directions.double().cpu()
    moves = directions[1:NUM_POSITIONS] - directions[list(parents)]  # (21, 3, 10)
    betas = torch.as_tensor(start, dtype=torch.float64)
    for _ in range(8):
        rest = _rest_joints(body, betas.numpy())
        bones = rest[1:NUM_POSITIONS] - rest[list(parents)]
        lengths = bones.norm(dim=-1)
        jacobian = torch.einsum("jc,jck->jk", bones / lengths[:, None], moves)
        gram = jacobian.T @ jacobian + noise**2 * torch.eye(NUM_BETAS, dtype=torch.float64)
        betas = betas + torch.linalg.solve(gram, jacobian.T @ (wanted - lengths) - noise**2 * betas)
    return betas.numpy()


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(1e-9)


def _running_mean(values: Tensor, sigma: float) -> Tensor:
    """Gaussian mean over the first axis of (T, C), ends repeated."""
    if sigma <= 0 or len(values) == 1:
        return values
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device) / sigma) ** 2)
    padded = torch.cat([values[:1].expand(reach, -1), values, values[-1:].expand(reach, -1)])
    return torch.nn.functional.conv1d(padded.T[:, None], (kernel / kernel.sum())[None, None])[:, 0].T


def _analytic_rotations(target: Tensor, offsets: Tensor, smoothing: float) -> Tensor:
    """(T, 24, 3, 3) global rotations that turn the rest bones into the directions of the target's."""
    parents = smpl_parents()
    turn: dict[int, Tensor] = {}

    def bone(child: int) -> Tensor:
        return target[:, child] - target[:, parents[child]]

    def follow(child: int, base: Tensor) -> Tensor:
        """``base`` swung so that the bone to ``child`` points as it should."""
        return rotations.rotation_between(base @ offsets[child], bone(child)) @ base

    def register(joint: int, points: tuple[int, ...], weights: Sequence[float], rest: Tensor) -> Tensor:
        wanted = (target[:, list(points)] - target[:, joint : joint + 1]) * target.new_tensor(weights)[:, None]
        covariance = torch.einsum("tkc,kd->tcd", wanted, rest)
        return roma.special_procrustes(covariance + 1e-9 * torch.eye(3, dtype=target.dtype, device=target.device))

    turn[PELVIS] = register(PELVIS, (1, 2, 3), (1, 1, 1), offsets[[1, 2, 3]])
    # Shoulders carry the heading of the chest better than the short collar bones, although they move by themselves.
    shoulders = torch.stack([offsets[13] + offsets[16], offsets[14] + offsets[17]])
    chest_rest = torch.cat([offsets[[12, 13, 14]], 0.5 * shoulders])
    turn[CHEST] = register(CHEST, CHEST_CHILDREN, (1, 1, 1, 0.5, 0.5), chest_rest)
    between = rotations.matrix_to_rotvec(turn[PELVIS].transpose(-1, -2) @ turn[CHEST])
    for joint, child, share in ((SPINE1, SPINE2, 1 / 3), (SPINE2, CHEST, 2 / 3)):
        turn[joint] = follow(child, turn[PELVIS] @ rotations.rotvec_to_matrix(share * between))
    turn[NECK] = follow(HEAD, turn[CHEST])
    turn[HEAD] = turn[NECK]
    for collar, shoulder in ((13, 16), (14, 17)):
        turn[collar] = follow(shoulder, turn[CHEST])
    for (first, hinge, end, axis), is_leg in [(limb, False) for limb in ARMS] + [(limb, True) for limb in LEGS]:
        swung = follow(hinge, turn[parents[first]])
        now = bone(hinge), bone(end), bone(end + 3) if is_leg else None
        rest = offsets[hinge], offsets[end], offsets[end + 3] if is_leg else None
        turn[first], bent = _limb_rotations(swung, now, rest, offsets.new_tensor(axis), smoothing)
        turn[hinge] = follow(end, bent)
        turn[end] = follow(end + 3, turn[hinge]) if is_leg else turn[hinge]
    for joint in (10, 11, 22, 23):
        turn[joint] = turn[parents[joint]]
    return torch.stack([turn[joint] for joint in range(len(parents))], 1)


Chain = tuple[Tensor, Tensor, Tensor | None]


def _limb_rotations(swung: Tensor, now: Chain, rest: Chain, axis: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Global rotations of the upper part with its twist, and of the lower part bent about the hinge.

    ``swung`` (T, 3, 3) turns the upper part by the smallest turn; the bones (upper, lower and, for legs, foot) are (T,
    3) ``now`` in the world and (3,) at ``rest``, as the hinge's ``axis``.
    """
    along = _unit(now[0])
    bend, foot = _twist_points(now, swung @ axis)
    rest_bend, rest_foot = _twist_points(rest, axis)
    # Twist as a point in the plane across the bone: its length is how much it is to be trusted. The rest pose, whose
    # knees are not quite straight and whose toes point outwards, must come out as zero twist.
    seen = bend - rest_bend * rest_bend.new_tensor([0.0, 1.0]) + rest_bend.new_tensor([MIN_BEND, 0.0])
    if foot is not None:
        x, y = _unit(rest_foot)
        turned = torch.stack([foot[:, 0] * x + foot[:, 1] * y, foot[:, 1] * x - foot[:, 0] * y], -1)
        seen = seen + FOOT_EVIDENCE * turned
    seen = _running_mean(seen, smoothing)
    upper = rotations.rotvec_to_matrix(along * torch.atan2(seen[:, 1], seen[:, 0])[:, None]) @ swung
    # About the hinge first: a folded limb would let the smallest rotation turn any way.
    hinge = upper @ axis
    angle = _bend_angle(now, hinge) - _bend_angle(rest, axis)
    return upper, rotations.rotvec_to_matrix(hinge * angle[:, None]) @ upper


def _twist_points(chain: Chain, hinge: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where bend and foot put the hinge axis, as (..., 2) points in the plane across the upper bone whose first axis is
    ``hinge``; the first has the length of the sine of the bend."""
    along = _unit(chain[0])
    first = _unit(hinge - (hinge * along).sum(-1, keepdim=True) * along)
    second = torch.linalg.cross(along, first, dim=-1)

    def point(vector: Tensor) -> Tensor:
        return torch.stack([(vector * first).sum(-1), (vector * second).sum(-1)], -1)

    bend = point(torch.linalg.cross(along, _unit(chain[1]), dim=-1))
    return bend, None if chain[2] is None else point(torch.linalg.cross(_unit(chain[2]), along, dim=-1))


def _bend_angle(chain: Chain, hinge: Tensor) -> Tensor:
    """Angle of the lower bone against the upper one about the hinge, radians."""
    along = _unit(chain[0])
    across = torch.linalg.cross(hinge, along, dim=-1)
    return torch.atan2((chain[1] * across).sum(-1), (chain[1] * along).sum(-1))


def _ancestors() -> Tensor:
    """(17, 22): 1 where the turning joint is a strict ancestor of the position."""
    parents = smpl_parents()
    table = torch.zeros(len(TURNING), NUM_POSITIONS, dtype=torch.float64)
    for k in range(1, NUM_POSITIONS):
        joint = parents[k]
        while joint >= 0:
            table[TURNING.index(joint), k] = 1.0
            joint = parents[joint]
    return table


def refine(
    local: Tensor, target: Tensor, offsets: Tensor, importance: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt on positions, all frames at once, in float64.

    Args:
        local: (T, 24, 3, 3) local rotations to start from; their twist stays where positions do not show it.
        target: (T, 22, 3) joints, metres.
        offsets: (24, 3) bones at rest, of any body or other skeleton.
        importance: (22,) weight of each joint.
        iterations: Number of steps.

    Returns:
        Local rotations (T, 24, 3, 3) and root positions (T, 3).

    Unknowns of a frame: the root position and a rotation vector in world axes about each turning joint. The sum of the
    steps taken so far is kept small, see ``STIFF``. Each frame has a damping of its own: a step that makes the frame
    worse is not taken and the next one is shorter (bones of foreign length make plain Gauss-Newton swing to and fro).
    """
    frames, count = len(target), len(TURNING)
    below, turning, parents = _ancestors().to(target.device), list(TURNING), smpl_parents()
    like: dict[str, Any] = {"dtype": torch.float64, "device": target.device}
    stiffness = torch.tensor([STIFF if j in STIFF_JOINTS else LOOSE for j in TURNING], **like)
    prior = torch.cat([torch.full((3,), 1e-9, **like), stiffness.repeat_interleave(3)])
    weights = importance[:, None].expand(NUM_POSITIONS, 3).reshape(-1)
    above = [parents[j] for j in turning]
    basis = torch.eye(3, **like)
    unmoved = basis[:, None].expand(frames, 3, NUM_POSITIONS, 3)

    def posed(state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        joints, turned = kinematics.forward_kinematics(state[0], offsets, parents, state[1])
        joints = joints[:, :NUM_POSITIONS]
        residual = (target - joints).flatten(1)
        return joints, turned, residual, (weights * residual**2).sum(1) + (prior * state[2] ** 2).sum(1)

    state = (local, target[:, 0].clone(), torch.zeros(frames, 3 + 3 * count, **like))
    joints, turned, residual, cost = posed(state)
    damping = torch.full((frames,), FIRST_DAMPING, **like)
    for _ in range(iterations):
        lever = (joints[:, None] - joints[:, turning, None]) * below[..., None]  # (T, 17, 22, 3)
        columns = torch.linalg.cross(basis[None, None, :, None], lever[:, :, None], dim=-1)  # (T, 17, 3 axes, 22, 3)
        jacobian = torch.cat([unmoved, columns.reshape(frames, 3 * count, NUM_POSITIONS, 3)], 1).flatten(2)
        weighted = jacobian * weights
        damped = torch.diag_embed(damping[:, None].expand(-1, 3 + 3 * count))
        gram = weighted @ jacobian.transpose(-1, -2) + torch.diag(prior) + damped
        moment = (weighted @ residual[..., None])[..., 0] - prior * state[2]
        step = torch.cholesky_solve(moment[..., None], torch.linalg.cholesky(gram))[..., 0]
        delta = rotations.rotvec_to_matrix(step[:, 3:].reshape(frames, count, 3))
        frame = turned[:, above].clone()
        frame[:, 0] = basis  # the root's parent is the world
        moved = state[0].clone()
        moved[:, turning] = frame.transpose(-1, -2) @ delta @ frame @ moved[:, turning]
        tried = (moved, state[1] + step[:, :3], state[2] + step)
        outcome = posed(tried)
        better = outcome[3] < cost
        damping = torch.where(better, damping * 0.3, damping * 5.0).clamp(1e-7, 10.0)

        def kept(new: Tensor, old: Tensor, better: Tensor = better) -> Tensor:
            return torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        state = tuple(kept(new, old) for new, old in zip(tried, state))
        joints, turned, residual, cost = (kept(new, old) for new, old in zip(outcome, (joints, turned, residual, cost)))
    return state[0], state[1]
