"""Looks taken from photographs: a person's colours at the places where its body parts are known, and its surroundings
with the person removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from posesyn import skeletons
from posesyn.geometry.devices import device_of
from posesyn.interfaces import BodyModel
from posesyn.synthesis.rendering.appearance.appearance import Appearance, Garment, sample_appearance
from posesyn.synthesis.rendering.appearance.scenes import Colour, rounded
from posesyn.synthesis.rendering.mesh.rasterizer import rasterize
from posesyn.synthesis.rendering.mesh.surface import SKIN_TINT
from posesyn.types import Person, PoseBatch, ScoredPerson

# Own choices. Pixels of the original picture unless said otherwise.
_MIN_BOX_HEIGHT = 56  # below this a garment is a few pixels of mixed colours
_PICTURE_SIDE = 480  # the picture is shrunk to this before the person is painted over
_MAX_COVERED = 0.6  # share of the picture that can be painted over
_ALIKE = 22.0  # CIE Lab distance below which two patches are the same material
_PATTERNED = 26.0  # spread of a garment's Lab colours above which it has a pattern
_LIGHT = 1.15  # how much brighter a material is than its middle colour in a photo
# Skin in YCrCb: Chai and Ngan, "Face segmentation using skin-color map in videophone applications", IEEE TCSVT 1999.
_SKIN_CR, _SKIN_CB = (133, 173), (77, 127)

# Joints of coco17.
_NOSE, _EYES, _SHOULDERS, _HIPS = 0, (1, 2), (5, 6), (11, 12)
_BONES = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (5, 6), (11, 12), (5, 11), (6, 12))


@dataclass(frozen=True, eq=False)
class _Pose:
    """Joints in ``coco17`` order with the picture they lie in."""

    image: np.ndarray
    points: np.ndarray  # (17, 2)
    present: np.ndarray  # (17,)
    unit: float  # length of the torso in pixels

    def patch(self, point: np.ndarray, radius: float) -> np.ndarray | None:
        """(N, 3) pixels around a point, None where it leaves the picture."""
        height, width = self.image.shape[:2]
        reach = max(1, round(radius * self.unit))
        x, y = (int(value) for value in np.rint(point))
        if not (reach <= x < width - reach and reach <= y < height - reach):
            return None
        return self.image[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3)

    def between(
        self, pairs: tuple[tuple[int, int], ...], shares: tuple[float, ...], radius: float
    ) -> np.ndarray | None:
        """Pixels at the given shares of the way between joints; None if none can be had."""
        known = [(self.points[a], self.points[b]) for a, b in pairs if self.present[a] and self.present[b]]
        patches = [self.patch(start + share * (end - start), radius) for start, end in known for share in shares]
        found = [patch for patch in patches if patch is not None]
        return np.concatenate(found) if found else None


def likeness(
    source: ScoredPerson | Person, rng: np.random.Generator, style: str = "wild", body: BodyModel | None = None
) -> Appearance:
    """The look of a person in a picture.

    Args:
        source: A person; for a scored one the estimator's prediction tells where the parts are (it is good on
            non-challenging persons), for a plain one its annotated keypoints.
        rng: Draws what the picture does not tell.
        style: Family of the random part.
        body: With it, the mask of the person comes from the predicted body; else from thick bones.

    Returns:
        An appearance with the person's skin, hair and clothes, and the picture without the person as background.
        ``notes`` lists what was drawn at random instead, and why.

    Raises:
        FileError: The image cannot be read.
    """
    person = source.person if isinstance(source, ScoredPerson) else source
    prediction = source.prediction if isinstance(source, ScoredPerson) else None
    look = replace(sample_appearance(rng, style), source=person.person_id)
    tall = float(person.body_box_xyxy[3] - person.body_box_xyxy[1])
    if tall < _MIN_BOX_HEIGHT:
        reason = f"everything: the person is {tall:.0f} px high, {_MIN_BOX_HEIGHT} are needed"
        return replace(look, source="random", notes=(f"person {person.person_id}", reason))
    image = person.image.load()
    pose = _locate(image, person, prediction)
    notes: list[str] = []
    if pose is None:
        notes.append("clothes, skin and hair: shoulders and hips are not known")
    else:
        look = _dress(look, pose, notes)
    picture, box = _surroundings(image, person, prediction, pose, body, notes)
    return replace(look, background=picture, background_box=box, notes=tuple(notes))


def _locate(image: np.ndarray, person: Person, prediction: PoseBatch | None) -> _Pose | None:
    points, present = skeletons.convert(person.keypoints_px, person.skeleton, "coco17", visible=person.visible)
    if prediction is not None:
        points, present = skeletons.convert(prediction.keypoints_px[0], prediction.skeleton, "coco17")
    points, present = np.asarray(points, np.float64), np.asarray(present, bool)
    if not present[[*_SHOULDERS, *_HIPS]].all():
        return None
    unit = float(np.linalg.norm(points[list(_SHOULDERS)].mean(0) - points[list(_HIPS)].mean(0)))
    return _Pose(image, points, present, max(unit, 8.0))


def _dress(look: Appearance, pose: _Pose, notes: list[str]) -> Appearance:
    skin = _skin(pose)
    if skin is None:
        notes.append("skin: no skin-coloured face, arm or hand")
    else:
        look = replace(look, skin=_lit(skin / SKIN_TINT))
    reference = np.asarray(look.skin) if skin is None else skin
    torso = pose.between(((5, 12), (6, 11), (5, 11), (6, 12)), (0.35, 0.5, 0.65), 0.06)
    if torso is None:
        notes.append("shirt: outside the picture")
    else:
        sleeve = _sleeve(pose, np.median(torso, 0), reference, look.sleeve)
        look = replace(look, top=_garment(torso, look.top), sleeve=sleeve)
    thigh = pose.between(((11, 13), (12, 14)), (0.25, 0.4, 0.55), 0.05)
    if thigh is None:
        notes.append("trousers: outside the picture")
    else:
        cloth = np.median(thigh, 0)
        shin = pose.between(((13, 15), (14, 16)), (0.35, 0.6), 0.04)
        length = look.trouser if shin is None else 1.95 if _nearer(np.median(shin, 0), cloth, reference) else 0.75
        look = replace(look, bottom=_garment(thigh, look.bottom), trouser=length, skirt=False)
    foot = pose.between(((13, 15), (14, 16)), (1.12,), 0.05)
    if foot is None:
        notes.append("shoes: outside the picture")
    else:
        look = replace(look, shoes=_lit(np.median(foot, 0)))
    return _hair(look, pose, reference, notes)


def _skin(pose: _Pose) -> np.ndarray | None:
    """(3,) sRGB of skin: the middle of face, hands and forearms, as far as they are skin-coloured."""
    places = []
    if pose.present[_NOSE]:
        places.append(pose.patch(pose.points[_NOSE], 0.05))
        eyes = [eye for eye in _EYES if pose.present[eye]]
        places += [pose.patch(1.6 * pose.points[_NOSE] - 0.6 * pose.points[eye], 0.03) for eye in eyes]
    places += [pose.between(((7, 9), (8, 10)), shares, 0.03) for shares in ((1.1,), (0.9,), (0.6,))]
    found = []
    for patch in places:
        if patch is None:
            continue
        colour = np.median(patch, 0)
        _, cr, cb = cv2.cvtColor(np.array([[colour]]).astype(np.uint8), cv2.COLOR_RGB2YCrCb)[0, 0]
        if _SKIN_CR[0] <= cr <= _SKIN_CR[1] and _SKIN_CB[0] <= cb <= _SKIN_CB[1]:
            found.append(colour)
    return np.median(found, 0) if found else None


def _sleeve(pose: _Pose, cloth: np.ndarray, skin: np.ndarray, fallback: float) -> float:
    forearm = pose.between(((7, 9), (8, 10)), (0.4, 0.6), 0.03)
    upper = pose.between(((5, 7), (6, 8)), (0.4, 0.6), 0.04)
    if forearm is not None and _nearer(np.median(forearm, 0), cloth, skin):
        return 1.95
    if upper is not None:
        return 0.65 if _nearer(np.median(upper, 0), cloth, skin) else -0.05
    return fallback


def _hair(look: Appearance, pose: _Pose, skin: np.ndarray, notes: list[str]) -> Appearance:
    if not pose.present[_NOSE]:
        notes.append("hair: the head is not known")
        return look
    neck = pose.points[list(_SHOULDERS)].mean(0)
    patch = pose.patch(neck + 1.62 * (pose.points[_NOSE] - neck), 0.05)  # above the forehead
    if patch is None:
        notes.append("hair: outside the picture")
        return look
    colour = np.median(patch, 0)
    if _lab_distance(colour, skin) < 0.6 * _ALIKE:
        notes.append("hair: not to be told from the forehead")
        return look
    return replace(look, hair=_lit(colour), hair_style="short" if look.hair_style == "bald" else look.hair_style)


def _garment(pixels: np.ndarray, random: Garment) -> Garment:
    """Plain cloth of the median colour, or with the drawn pattern in the two main colours if they differ enough."""
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    spread = float(np.linalg.norm(lab - np.median(lab, 0), axis=1).mean())
    if spread < _PATTERNED:
        return replace(random, colour=_lit(np.median(pixels, 0)), pattern="plain")
    bright = lab[:, 0] > np.median(lab[:, 0])
    pattern = random.pattern if random.pattern not in ("plain", "block", "raglan") else "camouflage"
    return replace(
        random, colour=_lit(np.median(pixels[~bright], 0)), second=_lit(np.median(pixels[bright], 0)), pattern=pattern
    )


def _surroundings(
    image: np.ndarray, person: Person, prediction: PoseBatch | None, pose: _Pose | None, body, notes: list[str]
) -> tuple[np.ndarray | None, tuple[float, float, float, float] | None]:
    """The picture with the person painted over (Telea, J. Graphics Tools 2004), shrunk, and where the person was."""
    height, width = image.shape[:2]
    scale = min(1.0, _PICTURE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    mask = np.zeros(small.shape[:2], np.uint8)
    if prediction is not None:
        mask |= _body_mask(prediction, body, scale, small.shape[:2])
    if pose is not None:
        mask |= _bone_mask(pose, scale, small.shape[:2])
    box = np.asarray(person.body_box_xyxy, np.float64) * scale
    if not mask.any():
        left, top, right, bottom = (max(int(value), 0) for value in np.rint(box))
        mask[top:bottom, left:right] = 1
    margin = max(3, int(0.03 * (box[3] - box[1])))
    mask = cv2.dilate(mask, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    if mask.mean() > _MAX_COVERED:
        notes.append(f"background: the person covers {mask.mean():.0%} of the picture")
        return None, None
    if min(small.shape[:2]) < 32:
        notes.append("background: the picture is too small")
        return None, None
    painted = cv2.inpaint(small, mask, 4, cv2.INPAINT_TELEA)
    # The painted area is streaky: blur it, leave the rest.
    blurred = cv2.GaussianBlur(painted, (0, 0), max(2.0, margin / 2))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2.0)[..., None]
    painted = (painted + soft * (blurred.astype(np.float32) - painted)).astype(np.uint8)
    x1, y1, x2, y2 = (float(value) for value in box)
    return painted, (x1, y1, x2, y2)


def _body_mask(prediction: PoseBatch, body, scale: float, size: tuple[int, int]) -> np.ndarray:
    """Silhouette of the predicted body, empty where the prediction has no body parameters."""
    parts = (prediction.pose_rotmat, prediction.betas, prediction.transl_cam, prediction.intrinsics)
    if body is None or any(part is None for part in parts):
        return np.zeros(size, np.uint8)
    rotations, betas, translation, matrix = (torch.from_numpy(np.asarray(part, np.float32)) for part in parts)
    place = device_of(body)
    with torch.no_grad():
        # One body, drawn once: the picture that it masks is on the CPU.
        vertices = body(rotations.to(place), betas.to(place), translation.to(place)).vertices.cpu()
    matrix = matrix.clone()
    matrix[:, :2, 2] = (matrix[:, :2, 2] + 0.5) * scale - 0.5
    matrix[:, [0, 1], [0, 1]] *= scale
    return rasterize(vertices, body.faces, matrix, size).mask[0].numpy().astype(np.uint8)


def _bone_mask(pose: _Pose, scale: float, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    points = np.rint((pose.points + 0.5) * scale - 0.5).astype(int)
    wide = max(2, int(0.24 * pose.unit * scale))
    for start, end in _BONES:
        if pose.present[start] and pose.present[end]:
            cv2.line(mask, tuple(map(int, points[start])), tuple(map(int, points[end])), 1, wide)
    torso = points[[5, 6, 12, 11]]
    cv2.fillConvexPoly(mask, cv2.convexHull(torso.astype(np.int32)), 1)
    for wrist, elbow in ((9, 7), (10, 8), (15, 13), (16, 14)):  # hands and feet reach beyond the last joint
        if pose.present[wrist] and pose.present[elbow]:
            tip = points[wrist] + 0.35 * (points[wrist] - points[elbow])
            cv2.circle(mask, tuple(map(int, tip)), wide, 1, -1)
    if pose.present[_NOSE]:
        neck = points[list(_SHOULDERS)].mean(0)
        head = neck + 1.15 * (points[_NOSE] - neck)
        cv2.circle(mask, tuple(map(int, head)), max(2, int(0.38 * pose.unit * scale)), 1, -1)
    return mask


def _lit(rgb: np.ndarray) -> Colour:
    """Reflectance from a colour seen in a photo: brighter, since light and shading have darkened it."""
    return rounded(np.asarray(rgb) * _LIGHT)


def _lab_distance(first: np.ndarray, second: np.ndarray) -> float:
    lab = cv2.cvtColor(np.array([[first, second]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))


def _nearer(colour: np.ndarray, cloth: np.ndarray, skin: np.ndarray) -> bool:
    return _lab_distance(colour, cloth) <= _lab_distance(colour, skin)
