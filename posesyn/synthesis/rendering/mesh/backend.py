"""The renderer that needs nothing but torch: a dressed body before a scene, with exact labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.errors import InputError
from posesyn.geometry.devices import device_of, halving, moved, resolve_device
from posesyn.geometry.rotations import matrix_to_rotvec, rotvec_to_matrix
from posesyn.interfaces import BodyModel
from posesyn.settings.base import plain
from posesyn.settings.stages import check_style
from posesyn.storage.checkpoints import fingerprint
from posesyn.synthesis.rendering.appearance.appearance import (
    Appearance,
    Backgrounds,
    place_background,
    sample_appearance,
)
from posesyn.synthesis.rendering.appearance.scenes import Flat, Scene
from posesyn.synthesis.rendering.mesh.rasterizer import (
    Fragments,
    barycentrics,
    feathered,
    halved,
    interpolate,
    rasterize,
)
from posesyn.synthesis.rendering.mesh.shading import GroundShadow, Lighting, VertexNormals, pixel_rays, sample_lighting
from posesyn.synthesis.rendering.mesh.surface import BodySurface, paint, thickness
from posesyn.synthesis.rendering.view import MODES, CameraPath, FilmDeveloper, sample_camera, sample_film
from posesyn.types import Clip, Motion, ViewRequest

# Own choices, in metres. A joint inside the body counts as seen if what is seen in front of it is its own part of the
# body and not thicker than a chest; anything else hides it unless it lies no deeper than the skin around it.
_OWN_PART, _CLOTH = 0.28, 0.04
_TORSO = (0, 3, 6, 9, 12, 13, 14)
# Parts beside the kinematic neighbours that belong to a joint: the chest to the shoulders, the belly to the hips.
_BESIDE = {1: (3,), 2: (3,), 16: (9,), 17: (9,), 15: (12,)}
_INNER_JOINTS = 24


@dataclass(frozen=True, eq=False)
class CameraLabels:
    """Shapes: pose_rotvec (T, 24, 3), transl_cam (T, 3), joints_cam (T, 45, 3), keypoints_px (T, 45, 2); float32."""

    pose_rotvec: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    keypoints_px: np.ndarray


def camera_labels(body: BodyModel, motion: Motion, joints_world: np.ndarray, camera: CameraPath) -> CameraLabels:
    """Body parameters of a motion as seen by a camera.

    SMPL rotates the body around its pelvis j0, which is not at the origin: v = R0 (v' − j0) + j0 + t. In the camera
    frame, R v + s has root rotation R R0 and translation R (j0 + t) + s − j0.

    Args:
        body: Needs ``rest_joints``.
        motion: In the world frame.
        joints_world: (T, 45, 3) float64 of the posed body.
        camera: Of the clip.
    """
    rotation = camera.rotation.astype(np.float64)
    root = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec[:, 0]).double())
    pose = motion.pose_rotvec.copy()
    pose[:, 0] = matrix_to_rotvec(torch.from_numpy(rotation) @ root).float().numpy()
    with torch.no_grad():
        betas = torch.from_numpy(motion.betas)[None].to(device_of(body))
        pelvis = body.rest_joints(betas)[0, 0].cpu().double().numpy()
    translation = (pelvis + motion.transl_world) @ rotation.T + camera.translation.astype(np.float64) - pelvis
    joints = camera.to_camera(joints_world)
    matrix = camera.intrinsics.astype(np.float64)
    keypoints = joints[..., :2] / joints[..., 2:] * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
    return CameraLabels(*(value.astype(np.float32) for value in (pose, translation, joints, keypoints)))


class JointVisibility:
    """Decides which joints are seen of a body, whose ``parents`` are those of the 24 joints, -1 for the root."""

    def __init__(self, surface: BodySurface, parents: Sequence[int]) -> None:
        distance = np.linalg.norm(surface.rest_joints[:, None] - surface.rest_vertices[None], axis=-1).min(1)
        self._tolerance = _CLOTH + distance
        self._part_of_face = surface.weights[surface.faces].sum(1).argmax(1)
        self._own = np.zeros((len(surface.rest_joints), surface.weights.shape[1]), bool)
        for joint in range(_INNER_JOINTS):
            near = {joint, max(parents[joint], 0)} | {child for child, p in enumerate(parents) if p == joint}
            near |= set(_BESIDE.get(joint, ())) | (set(_TORSO) if joint in _TORSO else set())
            self._own[joint, sorted(near)] = True

    def __call__(
        self, joints_cam: np.ndarray, keypoints_px: np.ndarray, face_index: np.ndarray, depth: np.ndarray
    ) -> np.ndarray:
        """(T, J) bool: inside the image and not behind another part of the body.

        Args:
            joints_cam: (T, J, 3) metres. keypoints_px: (T, J, 2).
            face_index: (T, H, W), -1 where no body is seen. depth: (T, H, W) metres.
        """
        frames, height, width = face_index.shape
        column, row = np.rint(keypoints_px[..., 0]), np.rint(keypoints_px[..., 1])
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (joints_cam[..., 2] > 0)
        column, row = np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int)
        frame = np.arange(frames)[:, None]
        face = face_index[frame, row, column]
        behind = joints_cam[..., 2] - depth[frame, row, column]
        own = self._own[np.arange(face.shape[1]), self._part_of_face[face]]
        hidden = (face >= 0) & (behind > np.where(own, _OWN_PART, self._tolerance))
        return inside & ~hidden


_BODY_PASS = 64  # frames posed at once; constant, so that results do not depend on ``frames_per_pass``
_GAMMA = 2.2


@dataclass(frozen=True, eq=False)
class _Stage:
    """All that stays the same during a clip."""

    camera: CameraPath
    lighting: Lighting
    shadow: GroundShadow
    colours: torch.Tensor  # (S, 3) linear reflectance of the surface samples
    pictures: torch.Tensor  # (1 or T, H, W, 3) 0 to 255
    film: FilmDeveloper


class MeshBackend:
    """Renders motions with the z-buffer.

    Args:
        image_size: (height, width) in pixels.
        body: Body to draw; default the small free body.
        backgrounds: Folder of photographs, or ``"procedural"``.
        style: ``"wild"`` or ``"lab"``, see :func:`posesyn.synthesis.rendering.appearance.appearance.sample_appearance`.
        camera: ``"auto"``, ``"fixed"`` or ``"tracking"``, see :func:`.view.sample_camera`.
        supersample: 1 softens the silhouette by one pixel, 2 averages four samples per pixel (about half the speed).
            Labels are those of the pixel centres in both cases.
        frames_per_pass: Frames drawn at once; changes memory and speed, never a byte of the result. Fewer where they do
            not fit into a GPU's memory; a clip of which not even one does is drawn on the CPU.
        device: Where triangles and pixels are computed: ``"auto"`` (an NVIDIA or AMD GPU, else the CPU), ``"cpu"`` or
            ``"cuda"``. The z-buffer needs 64-bit numbers, which Apple's GPU lacks. Pictures of two devices may differ
            by the rounding of their arithmetic.

    Raises:
        InputError: Bad settings, or no such device. FileError: A background folder that cannot be used.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        body: BodyModel | None = None,
        backgrounds: str | Path | None = None,
        style: str = "wild",
        camera: str = "auto",
        supersample: int = 1,
        frames_per_pass: int = 16,
        device: str | torch.device | None = "auto",
    ) -> None:
        check_style(style)
        if len(image_size) != 2 or min(image_size) < 16 or max(image_size) > 4096:
            problem = "image_size must be (height, width)"
            raise InputError(problem, where="rendering", expected="16 to 4096", got=image_size)
        if camera not in MODES:
            raise InputError("unknown camera mode", where="rendering", expected=", ".join(MODES), got=camera)
        if supersample not in (1, 2) or frames_per_pass < 1:
            wanted = "supersample 1 or 2, frames_per_pass at least 1"
            raise InputError("bad rendering settings", expected=wanted, got=(supersample, frames_per_pass))
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.device = _device(device)
        self._source, self._own_body = backgrounds, body is not None
        body = load_body("anny", size="small") if body is None else body
        # A body of the caller stays where it is.
        self.body = body if device_of(body) == self.device else moved(copy.deepcopy(body), self.device)
        self.style, self.camera_mode, self.supersample = style, camera, supersample
        self.frames_per_pass = frames_per_pass
        self.backgrounds = Backgrounds(backgrounds, style)
        self.surface = BodySurface(self.body, self.device)
        self._faces = torch.from_numpy(self.surface.faces).to(self.device)
        self._normals = VertexNormals(self.surface.faces, len(self.surface.rest_vertices), self.device)
        self._visibility = JointVisibility(self.surface, self.body.parents)

    def identity(self) -> dict[str, Any]:
        """What decides the pictures beside motion, appearance and seed, as JSON values under the arguments' names; of
        camera, supersampling and body only what is not the default's."""
        found = {"image_size": list(self.image_size), "style": self.style, "backgrounds": plain(self._source)}
        if self.camera_mode != "auto":
            found["camera"] = self.camera_mode
        if self.supersample != 1:
            found["supersample"] = self.supersample
        if self._own_body:
            found["body"] = fingerprint(self.body) if isinstance(self.body, torch.nn.Module) else str(type(self.body))
        return found

    def on(self, device: str | torch.device) -> MeshBackend:
        """The same backend on another device."""
        options = self.style, self.camera_mode, self.supersample, self.frames_per_pass, device
        twin = MeshBackend(self.image_size, self.body, None, *options)
        twin.backgrounds = self.backgrounds
        return twin

    def render(self, motion: Motion, appearance: Appearance | None = None, *, seed: int) -> Clip:
        """Renders one motion, in the world frame, as a clip with as many frames.

        Its ``view`` places the camera on a wanted side, up to a jitter of 12 degrees, and lets the image cut the person
        off. Without an appearance the look is drawn at random, as everything that is random by the seed.
        """
        here = self.device.type == "cpu"
        last = None if here else lambda motions: self.on("cpu")._render(motions[0], appearance, seed)
        return halving(lambda motions: self._render(motions[0], appearance, seed), [motion], 1, last)[0]

    @torch.no_grad()
    def _render(self, motion: Motion, appearance: Appearance | None, seed: int) -> Clip:
        streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
        if appearance is None:
            appearance = sample_appearance(streams[0], self.style)
        vertices, joints = self._pose(motion)
        floor = float(vertices[..., 1].min())
        view = motion.view or ViewRequest()
        wanted = {"yaw": view.camera_yaw, "elevation": view.camera_elevation, "truncation": view.truncation}
        how: dict[str, Any] = {"style": self.style, "mode": self.camera_mode, "floor": floor, "fps": motion.fps}
        camera = sample_camera(joints, self.image_size, streams[1], **how, **wanted)
        labels = camera_labels(self.body, motion, joints, camera)
        scene, background = self._scene(appearance, streams[2], camera, joints, floor, labels.keypoints_px)
        stage = self._set_stage(appearance, streams, camera, scene, floor)
        swell = torch.from_numpy(thickness(self.surface.vertex_points, appearance)).to(self.device)

        def draw(numbers: list[int]) -> tuple[np.ndarray, ...]:
            rows = slice(numbers[0], numbers[-1] + 1)
            image, fragments = self._draw(stage, vertices[rows], swell, rows)
            index, depth = fragments.face_index.cpu().numpy(), fragments.depth.cpu()
            seen = self._visibility(labels.joints_cam[rows], labels.keypoints_px[rows], index, depth.numpy())
            return image, fragments.mask.cpu().numpy(), depth.half().numpy(), seen

        parts = halving(draw, range(len(motion)), self.frames_per_pass)
        frames, masks, depths, visible = (np.concatenate(part) for part in zip(*parts))
        return Clip(
            clip_id=f"{motion.motion_id}/{seed}",
            frames=frames,
            **vars(labels),
            betas=motion.betas,
            visible=visible,
            mask=masks,
            depth=depths,
            intrinsics=camera.intrinsics,
            fps=motion.fps,
            caption=motion.caption,
            motion_id=motion.motion_id,
            person_id=motion.person_id,
            meta={
                "backend": "mesh",
                "seed": int(seed),
                "style": self.style,
                "body": str(getattr(self.body, "name", "")),
                "appearance": appearance.to_meta(),
                "background": background,
                "camera": {"yaw": camera.yaw, "elevation": camera.elevation, "tracking": camera.moving},
            },
        )

    def _pose(self, motion: Motion) -> tuple[torch.Tensor, np.ndarray]:
        """World vertices (T, V, 3) and joints (T, 45, 3)."""
        # A body that is no torch module computes on the CPU.
        arrays, place = (motion.pose_rotvec, motion.transl_world, motion.betas[None]), device_of(self.body)
        rotvec, translations, betas = (torch.from_numpy(value).to(place) for value in arrays)
        rotations = rotvec_to_matrix(rotvec)
        vertices, joints = [], []
        for start in range(0, len(motion), _BODY_PASS):
            rows = slice(start, start + _BODY_PASS)
            posed = self.body(rotations[rows], betas.expand(len(rotations[rows]), -1), translations[rows])
            vertices.append(posed.vertices.float())
            joints.append(posed.joints.cpu().double())
        return torch.cat(vertices).to(self.device), torch.cat(joints).numpy()

    def _scene(self, appearance, rng, camera, joints, floor, keypoints) -> tuple[Scene, str]:
        if appearance.background is None:
            return self.backgrounds.draw(rng, camera, joints[:, 0] * (1, 0, 1), floor, self.image_size)
        picture = place_background(appearance.background, appearance.background_box, keypoints, self.image_size)
        return Flat(picture.astype(np.float32)), f"person:{appearance.source}"

    def _set_stage(self, appearance, streams: Sequence[np.random.Generator], camera, scene, floor) -> _Stage:
        rays = pixel_rays(camera, self.image_size)
        eyes = camera.position if camera.moving and not isinstance(scene, Flat) else camera.position[:1]
        views = [scene.look(eye, rays) for eye in eyes]
        pictures = np.clip(np.stack([picture for picture, _ in views]), 0, 255).astype(np.float32)
        tint = None
        if isinstance(scene, Flat):  # the light in a photo has roughly the photo's mean colour
            mean = pictures.mean((0, 1, 2)) + 40
            tint = 0.6 + 0.4 * mean / mean.mean()
        lighting = sample_lighting(streams[3], self.style, camera.yaw, tint)
        mesh, lamp = (self.surface.rest_vertices, self.surface.faces), (lighting.lamp_direction, lighting.shadow)
        ground = np.logical_and.reduce([ground for _, ground in views])
        shadow = GroundShadow(*mesh, camera, floor, self.image_size, *lamp, ground, self.device)
        settings, grain = sample_film(streams[4], self.style), int(streams[5].integers(2**31))
        film = FilmDeveloper(settings, self.image_size, grain, self.device)
        colours = torch.from_numpy(paint(self.surface.points, appearance)).to(self.device)
        return _Stage(camera, lighting, shadow, colours, torch.from_numpy(pictures).to(self.device), film)

    def _draw(
        self, stage: _Stage, vertices: torch.Tensor, swell: torch.Tensor, rows: slice
    ) -> tuple[np.ndarray, Fragments]:
        """Some frames: pictures (T, H, W, 3) uint8 and what is seen at the pixel centres."""
        height, width = self.image_size
        normals = self._normals(vertices)
        dressed = vertices + swell[:, None] * normals
        camera = stage.camera.translation[rows], stage.camera.intrinsics
        shift, matrix = (torch.from_numpy(value).to(self.device) for value in camera)
        seen = _turned(dressed, stage.camera.rotation) + shift[:, None]
        matrix = matrix.expand(len(seen), 3, 3)
        labels = rasterize(seen, self._faces, matrix, self.image_size, cull_back_faces=True)
        fragments, fine = labels, matrix
        if self.supersample == 2:
            # Each pixel is split in four: sample centres lie at ±1/4, so that x' = 2 x + 1/2.
            fine = matrix.clone()
            fine[:, :2] *= 2
            fine[:, :2, 2] += 0.5
            fragments = rasterize(seen, self._faces, fine, (2 * height, 2 * width), cull_back_faces=True)
        layer = torch.zeros(fragments.face_index.numel(), 4, device=self.device)
        where, weights = barycentrics(fragments, seen, self._faces, fine)
        face = fragments.face_index.view(-1)[where]
        pixels = fragments.face_index[0].numel()
        corner_rows = self._faces[face] + (where // pixels * len(swell))[:, None]
        normal = interpolate(normals.reshape(-1, 3), corner_rows, weights)
        normal = normal / torch.sqrt((normal * normal).sum(-1, keepdim=True)).clamp_min(1e-6)
        light = stage.colours[self.surface.sample_index(face, weights)] * stage.lighting.irradiance(normal)
        layer[where, :3] = light.clamp_(0, 1) ** (1 / _GAMMA) * 255
        layer[where, 3] = 1
        layer = layer.view(*fragments.face_index.shape, 4)
        layer = halved(layer) if self.supersample == 2 else feathered(layer)
        pictures = stage.pictures[rows] if len(stage.pictures) > 1 else stage.pictures
        ground = pictures * stage.shadow(vertices, rows)[..., None]
        return stage.film(layer[..., :3] + (1 - layer[..., 3:]) * ground, rows.start).cpu().numpy(), labels


def _device(name: str | torch.device | None) -> torch.device:
    device = resolve_device(name)
    if device.type != "mps":
        return device
    if name in (None, "auto"):
        return torch.device("cpu")
    problem = "the z-buffer needs 64-bit numbers, which this device lacks"
    raise InputError(problem, where="MeshBackend", got=device, fix="use device='auto' or 'cpu'")


def _turned(points: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    """points @ rotation.T by single products: a matrix product may round differently for other batch sizes."""
    x, y, z = points.unbind(-1)
    rows = [[float(value) for value in row] for row in rotation]
    return torch.stack([a * x + b * y + c * z for a, b, c in rows], -1)
