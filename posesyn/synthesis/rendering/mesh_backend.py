"""The renderer that needs nothing but torch: a dressed body before a scene, with exact labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.errors import InputError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.protocols import BodyModel
from posesyn.synthesis.rendering.appearance import Appearance, check_style, sample_appearance
from posesyn.synthesis.rendering.backgrounds import Backgrounds
from posesyn.synthesis.rendering.cameras import MODES, CameraPath, sample_camera
from posesyn.synthesis.rendering.compositing import feathered, halved, place_background
from posesyn.synthesis.rendering.film import FilmDeveloper, sample_film
from posesyn.synthesis.rendering.ground_shadow import GroundShadow, pixel_rays
from posesyn.synthesis.rendering.labels import JointVisibility, camera_labels
from posesyn.synthesis.rendering.painting import paint, thickness
from posesyn.synthesis.rendering.rasterizer import Fragments, barycentrics, interpolate, rasterize
from posesyn.synthesis.rendering.scenes import Flat, Scene
from posesyn.synthesis.rendering.shading import Lighting, VertexNormals, sample_lighting
from posesyn.synthesis.rendering.surface import BodySurface
from posesyn.types import Clip, Motion

_BODY_PASS = 64  # frames posed at once; constant, so that results do not depend on ``frames_per_pass``
_GAMMA = 2.2


@dataclass(frozen=True)
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
        style: ``"wild"`` or ``"lab"``, see :func:`posesyn.synthesis.rendering.appearance.sample_appearance`.
        camera: ``"auto"``, ``"fixed"`` or ``"tracking"``, see :func:`.cameras.sample_camera`.
        supersample: 1 softens the silhouette by one pixel, 2 averages four samples per pixel (about half the speed).
            Labels are those of the pixel centres in both cases.
        frames_per_pass: Frames drawn at once; changes memory and speed, never a byte of the result.

    Raises:
        InputError: Bad settings. FileError: A background folder that cannot be used.
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
    ) -> None:
        check_style(style)
        if len(image_size) != 2 or min(image_size) < 16 or max(image_size) > 4096:
            raise InputError(
                "image_size must be (height, width)", where="rendering", expected="16 to 4096", got=image_size
            )
        if camera not in MODES:
            raise InputError("unknown camera mode", where="rendering", expected=", ".join(MODES), got=camera)
        if supersample not in (1, 2) or frames_per_pass < 1:
            raise InputError(
                "bad rendering settings",
                expected="supersample 1 or 2, frames_per_pass at least 1",
                got=(supersample, frames_per_pass),
            )
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.body = load_body("anny", size="small") if body is None else body
        self.style, self.camera_mode, self.supersample = style, camera, supersample
        self.frames_per_pass = frames_per_pass
        self.backgrounds = Backgrounds(backgrounds, style)
        self.surface = BodySurface(self.body)
        self._faces = torch.from_numpy(self.surface.faces)
        self._normals = VertexNormals(self.surface.faces, len(self.surface.rest_vertices))
        self._visibility = JointVisibility(
            self.surface.rest_joints,
            self.surface.rest_vertices,
            self.surface.weights,
            self.surface.faces,
            self.body.parents,
        )

    @torch.no_grad()
    def render(self, motion: Motion, appearance: Appearance | None = None, *, seed: int) -> Clip:
        """Renders one motion.

        Args:
            motion: In the world frame. ``meta["camera_yaw"]`` and ``meta["camera_elevation"]`` (radians, see
                :class:`CameraPath`) place the camera on a wanted side, up to a jitter of 12 degrees.
            appearance: How the person looks; drawn at random if None.
            seed: Decides everything that is random.

        Returns:
            A clip with as many frames as the motion.
        """
        streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
        if appearance is None:
            appearance = sample_appearance(streams[0], self.style)
        vertices, joints = self._pose(motion)
        floor = float(vertices[..., 1].min())
        camera = sample_camera(
            joints,
            self.image_size,
            streams[1],
            style=self.style,
            mode=self.camera_mode,
            fps=motion.fps,
            yaw=motion.meta.get("camera_yaw"),
            elevation=motion.meta.get("camera_elevation"),
            floor=floor,
        )
        labels = camera_labels(self.body, motion, joints, camera)
        scene, background = self._scene(appearance, streams[2], camera, joints, floor, labels.keypoints_px)
        stage = self._set_stage(appearance, streams, camera, scene, floor)
        swell = torch.from_numpy(thickness(self.surface.vertex_points, appearance))
        frames, masks, depths, visible = [], [], [], []
        for start in range(0, len(motion), self.frames_per_pass):
            rows = slice(start, min(start + self.frames_per_pass, len(motion)))
            image, fragments = self._draw(stage, vertices[rows], swell, rows)
            frames.append(image)
            masks.append(fragments.mask.numpy())
            depths.append(fragments.depth.half().numpy())
            visible.append(
                self._visibility(
                    labels.joints_cam[rows],
                    labels.keypoints_px[rows],
                    fragments.face_index.numpy(),
                    fragments.depth.numpy(),
                )
            )
        return Clip(
            clip_id=f"{motion.motion_id}/{seed}",
            frames=np.concatenate(frames),
            pose_rotvec=labels.pose_rotvec,
            betas=motion.betas,
            transl_cam=labels.transl_cam,
            joints_cam=labels.joints_cam,
            keypoints_px=labels.keypoints_px,
            visible=np.concatenate(visible),
            mask=np.concatenate(masks),
            depth=np.concatenate(depths),
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
        rotations = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec))
        translations, betas = torch.from_numpy(motion.transl_world), torch.from_numpy(motion.betas)[None]
        vertices, joints = [], []
        for start in range(0, len(motion), _BODY_PASS):
            rows = slice(start, start + _BODY_PASS)
            posed = self.body(rotations[rows], betas.expand(len(rotations[rows]), -1), translations[rows])
            vertices.append(posed.vertices.float())
            joints.append(posed.joints.double())
        return torch.cat(vertices), torch.cat(joints).numpy()

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
        shadow = GroundShadow(
            self.surface.rest_vertices,
            self.surface.faces,
            camera,
            floor,
            self.image_size,
            lighting.lamp_direction,
            lighting.shadow,
            np.logical_and.reduce([ground for _, ground in views]),
        )
        film = FilmDeveloper(sample_film(streams[4], self.style), self.image_size, int(streams[5].integers(2**31)))
        colours = torch.from_numpy(paint(self.surface.points, appearance))
        return _Stage(camera, lighting, shadow, colours, torch.from_numpy(pictures), film)

    def _draw(
        self, stage: _Stage, vertices: torch.Tensor, swell: torch.Tensor, rows: slice
    ) -> tuple[np.ndarray, Fragments]:
        """Some frames: pictures (T, H, W, 3) uint8 and what is seen at the pixel centres."""
        height, width = self.image_size
        normals = self._normals(vertices)
        dressed = vertices + swell[:, None] * normals
        seen = _turned(dressed, stage.camera.rotation) + torch.from_numpy(stage.camera.translation[rows])[:, None]
        matrix = torch.from_numpy(stage.camera.intrinsics).expand(len(seen), 3, 3)
        labels = rasterize(seen, self._faces, matrix, self.image_size, cull_back_faces=True)
        fragments, fine = labels, matrix
        if self.supersample == 2:
            # Each pixel is split in four: sample centres lie at ±1/4, so that x' = 2 x + 1/2.
            fine = matrix.clone()
            fine[:, :2] *= 2
            fine[:, :2, 2] += 0.5
            fragments = rasterize(seen, self._faces, fine, (2 * height, 2 * width), cull_back_faces=True)
        layer = torch.zeros(fragments.face_index.numel(), 4)
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
        return stage.film(layer[..., :3] + (1 - layer[..., 3:]) * ground, rows.start).numpy(), labels


def _turned(points: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    """points @ rotation.T by single products: a matrix product may round differently for other batch sizes."""
    x, y, z = points.unbind(-1)
    rows = [[float(value) for value in row] for row in rotation]
    return torch.stack([a * x + b * y + c * z for a, b, c in rows], -1)
