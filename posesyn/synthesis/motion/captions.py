"""Words for a pose, where nobody and nothing else describes the person. Rules and thresholds are our own choice."""

from __future__ import annotations

import numpy as np

from posesyn.errors import InputError
from posesyn.synthesis.motion.text import checked_texts

_PELVIS, _NECK, _HEAD = 0, 12, 15
_SIDES = {"left": (1, 4, 7, 16, 18, 20), "right": (2, 5, 8, 17, 19, 21)}  # hip, knee, ankle, shoulder, elbow, wrist


def describe_pose(joints: np.ndarray) -> str:
    """A caption such as ``"a person crouches with the left arm raised"`` for (22, 3) joints, y up, any unit.

    Raises:
        InputError: Wrong shape, or NaN.
    """
    joints = np.asarray(joints, np.float64)
    if joints.shape != (22, 3) or not np.isfinite(joints).all():
        raise InputError("a pose must be finite (22, 3)", where="describe_pose", got=joints.shape)
    trunk = joints[_NECK] - joints[_PELVIS]
    length = max(float(np.linalg.norm(trunk)), 1e-9)
    upright = trunk[1] / length
    legs = {side: joints[list(rows[:3])] for side, rows in _SIDES.items()}
    thighs = {side: (hip - knee)[1] / _norm(hip - knee) for side, (hip, knee, _) in legs.items()}
    reach = {side: (hip - ankle)[1] / length for side, (hip, _, ankle) in legs.items()}
    shins = {side: (knee - ankle)[1] / _norm(knee - ankle) for side, (_, knee, ankle) in legs.items()}
    ahead = {side: float(np.linalg.norm((ankle - hip)[[0, 2]])) / length for side, (hip, _, ankle) in legs.items()}
    raised_leg = max(reach, key=lambda side: -reach[side])
    other_leg = "right" if raised_leg == "left" else "left"

    if upright < -0.3:
        action = "does a cartwheel upside down"
    elif abs(upright) < 0.35 and max(reach.values()) < 0.6:
        action = "lies on the floor"
    elif upright < 0.6 and max(reach.values()) > 0.9:
        action = "bends over"
    elif reach[raised_leg] < 0.7 * reach[other_leg] and reach[other_leg] > 1.0:
        high = reach[raised_leg] < 0.3
        action = (
            f"kicks high with the {raised_leg} leg" if high else f"stands on one leg and lifts the {raised_leg} leg"
        )
    elif upright > 0.6 and max(thighs.values()) < 0.6 and min(shins.values()) > 0.7 and min(ahead.values()) > 0.35:
        action = "sits on a stool"  # who crouches has the feet below the hips
    elif max(reach.values()) < 0.75 and max(thighs.values()) < 0.6:
        action = "crouches down"
    elif max(reach.values()) < 1.2 and max(thighs.values()) < 0.75:
        action = "bends the knees"
    elif _stride(joints) > 0.75 * length:
        action = "takes a wide step"
    else:
        action = "stands"
    arms = _arms(joints, length)
    return f"a person {action}{' ' + arms if arms else ''}"


def choose_captions(
    given: str | None, said: str | None, annotated: tuple[str, ...], joints: np.ndarray, where: str
) -> tuple[list[str], str]:
    """The captions to sample with, by trust, and whose they are.

    The user's (``"user"``), else the captioner's (``"model"``), else the annotation's (``"person"``), else the pose
    described (``"pose"``). Empty captions of the annotation are passed over.

    Raises:
        InputError: The user's caption is empty.
    """
    if given is not None:
        return checked_texts([given], where), "user"
    if said is not None:
        return checked_texts([said], where), "model"
    usable = [caption for caption in annotated if isinstance(caption, str) and any(c.isalnum() for c in caption)]
    return (usable, "person") if usable else ([describe_pose(joints)], "pose")


def _norm(vector: np.ndarray) -> float:
    return max(float(np.linalg.norm(vector)), 1e-9)


def _stride(joints: np.ndarray) -> float:
    return float(np.linalg.norm((joints[7] - joints[8])[[0, 2]]))


def _arms(joints: np.ndarray, length: float) -> str:
    raised, level = [], []
    for side, (_, _, _, shoulder, _, wrist) in _SIDES.items():
        height = (joints[wrist] - joints[shoulder])[1] / length
        aside = np.linalg.norm((joints[wrist] - joints[shoulder])[[0, 2]]) / length
        if height > 0.4:
            raised.append(side)
        elif height > -0.35 and aside > 0.6:
            level.append(side)
    if len(raised) == 2:
        return "with both arms raised"
    if len(level) == 2:
        return "with outstretched arms"
    if raised:
        return f"with the {raised[0]} arm raised"
    return f"and reaches out with the {level[0]} arm" if level else ""
