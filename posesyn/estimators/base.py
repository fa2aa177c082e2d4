"""What every SMPL network shares: crops in, predictions in the full-image camera out, joints of a posed body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.data.crops import CropBatch, crop_persons
from posesyn.errors import InputError
from posesyn.geometry.cameras import (
    crop_to_full_translation,
    full_image_focal,
    intrinsics,
    project,
    weak_perspective_to_translation,
)
from posesyn.geometry.devices import halving, on_cpu
from posesyn.interfaces import BodyModel, EstimatorSpec
from posesyn.types import Person, PoseBatch
from posesyn.types.arguments import check_several


def predict_in_chunks(
    module: torch.nn.Module, spec: EstimatorSpec, persons: Sequence[Person],
    predict: Callable[[list[Person]], dict[str, np.ndarray]], size: int,
) -> PoseBatch:  # fmt: skip
    """Calls ``predict`` (persons → arrays by field name of :class:`PoseBatch`, one row per person) on at most ``size``
    persons at a time; ``module`` is left in the mode it was in.

    A batch that does not fit into the device's memory is halved (:func:`posesyn.geometry.devices.halving`), in the end
    predicted on the CPU. Raises InputError where there are no persons.
    """
    check_several(persons, Person, "predict")
    if not len(persons):
        raise InputError("predict needs at least one person", where=f"estimator '{spec.name}'")
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            parts = halving(predict, persons, size, last=on_cpu(module, predict))
    finally:
        module.train(was_training)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return PoseBatch(tuple(person.person_id for person in persons), spec.skeleton, **arrays)


# What no joint of 'smpl45' can stand for: the top of the head.
_CROWN = ("head_top", "head")


class PosedJoints:
    """Reads a joint set (``smpl30`` or ``hybrik29``) off a posed body: joints of ``smpl45`` and the top of the head.

    The top of the head is the highest vertex of the T-pose. 3DCrowdNet regresses its own from the vertices, with a
    licensed regressor (SPIN's J_regressor_extra.npy); the highest vertex is our own choice, for every body alike.
    """

    def __init__(self, body: BodyModel, skeleton: str) -> None:
        rows = skeletons.mapping("smpl45", skeleton, approximate=False)
        names = skeletons.get(skeleton).joints
        self.body, self.skeleton = body, skeleton
        self._rows = [45 if row < 0 and name in _CROWN else int(row) for row, name in zip(rows, names)]
        # The buffers of a body that is no torch module are assumed to be float32 on the CPU.
        like = next(body.buffers(), torch.zeros(1)) if isinstance(body, torch.nn.Module) else torch.zeros(1)
        rest = torch.eye(3, dtype=like.dtype, device=like.device).expand(11, 24, 3, 3)
        betas = torch.cat((rest.new_zeros(1, 10), torch.eye(10, dtype=like.dtype, device=like.device)))
        with torch.no_grad():
            self._crown = int(body(rest[:1], betas[:1]).vertices[0, :, 1].argmax())
            shapes = self(rest, betas)
        # The T-pose is linear in the betas, so that it takes no vertices once this is known.
        self._template, self._directions = shapes[0], shapes[1:] - shapes[0]

    def __call__(
        self, pose_rotmat: Float[Tensor, "B 24 3 3"], betas: Float[Tensor, "B 10"], transl: Tensor | None = None
    ) -> Float[Tensor, "B J 3"]:
        """Metres, in the frame of the root rotation."""
        posed = self.body(pose_rotmat, betas, transl)
        return torch.cat((posed.joints, posed.vertices[:, self._crown, None]), dim=1)[:, self._rows]

    def at_rest(self, betas: Float[Tensor, "B 10"]) -> Float[Tensor, "B J 3"]:
        """The T-pose."""
        return self._template.to(betas) + torch.einsum("bk,kjc->bjc", betas, self._directions.to(betas))


class SmplNetwork(nn.Module):
    """Crops in, a SMPL body in the camera of the full image out.

    A network implements ``forward``, which returns ``pose_rotmat``, ``betas`` and whatever its file is known for, and
    :meth:`weak_camera`. The body model is no part of the state dict: it is licensed or shipped apart.

    Args:
        spec: Input, crop rule, camera and 6D layout.
        body: Body model; default the free one in its small version.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    # Names of the submodules that hold nearly all of the work, for :meth:`accelerate`.
    heavy_parts: tuple[str, ...] = ("backbone",)

    def __init__(self, spec: EstimatorSpec, body: BodyModel | None = None, batch_size: int = 64) -> None:
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        self.half_precision = False
        # In __dict__ and not a submodule, so that its buffers stay out of state_dict() and parameters().
        self.body: Any
        self.__dict__["body"] = load_body(size="small") if body is None else body

    def _apply(self, fn: Callable, recurse: bool = True) -> SmplNetwork:
        super()._apply(fn, recurse)
        if isinstance(self.body, nn.Module):
            self.body._apply(fn)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def accelerate(self, half_precision: bool = False, compile: bool = False) -> SmplNetwork:
        """Trades exactness or a long first call for speed; off by default.

        Args:
            half_precision: The heavy parts run in bfloat16, everything after them in float32. Faster where the
                hardware has it (GPUs, CPUs with AMX or AVX512-BF16).
            compile: ``torch.compile`` for the heavy parts; the first call takes a minute or more. State dicts stay as
                they are.
        """
        self.half_precision = half_precision
        if compile:
            for name in self.heavy_parts:
                self.get_submodule(name).compile()
        return self

    def run_heavy(self, part: Callable[..., Any], *arguments: Tensor) -> Any:
        """Calls a heavy part in the chosen precision; tensors come back as float32 if that is a lower one."""
        if not self.half_precision:
            return part(*arguments)
        with torch.autocast(self.device.type, torch.bfloat16):
            result = part(*arguments)
        return result.float() if isinstance(result, Tensor) else [item.float() for item in result]

    def check_images(self, images: Tensor) -> None:
        """Raises InputError for images of another size than the network's."""
        got, wanted = tuple(images.shape), ("B", 3, *self.spec.input_size)
        if images.ndim != 4 or got[1:] != wanted[1:]:
            raise InputError("images have the wrong shape", where=f"estimator '{self.spec.name}'", expected=wanted,
                             got=got, fix="crop them with posesyn.data.crops")  # fmt: skip

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        """Predicts in the camera of the full image, in the order given; in eval mode, without gradients.

        The focal length of the full image is unknown: HMR2's f / crop size · max(W, H) is assumed (4D-Humans),
        with the focal length of the network's own crop camera, unless the network says otherwise.

        Raises:
            InputError: No persons, a box that is empty or outside its image, or keypoints that the network needs and
                a person lacks.
            FileError: An image cannot be read.
        """
        return predict_in_chunks(self, self.spec, persons, self._predict, self.batch_size)

    def answer(self, crops: CropBatch, persons: Sequence[Person]) -> dict[str, Tensor]:
        """``forward`` on inference crops."""
        return self(torch.from_numpy(crops.images).to(self.device))

    def weak_camera(self, output: Mapping[str, Tensor]) -> Tensor:
        """(B, 3) weak perspective (s, tx, ty) of the SMPL translation in the crop, from an output of ``forward``."""
        return output["cam"]

    def pseudo_labels(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What this network would label a training batch with, in the frame of the crops (:mod:`posesyn.data.batches`).

        Returns:
            ``pose_rotmat``, ``betas``, ``joints``, ``joints_norm``, ``transl_cam`` and ``intrinsics``.
        """
        output = self.answer_batch(batch)
        (height, width), focal = self.spec.input_size, self.spec.focal_length
        transl = weak_perspective_to_translation(self.weak_camera(output), focal, width)
        joints = self.body(output["pose_rotmat"], output["betas"]).joints
        camera = intrinsics(focal, width, height).to(joints).expand(len(joints), 3, 3)
        size = joints.new_tensor([width, height])
        points = project(joints + transl[:, None], camera)
        return {
            "pose_rotmat": output["pose_rotmat"],
            "betas": output["betas"],
            "joints": joints - joints[:, :1],
            "joints_norm": (points - (size - 1) / 2) / (size / 2),
            "transl_cam": transl,
            "intrinsics": camera,
        }

    def answer_batch(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``forward`` on a training batch."""
        return self(batch["images"])

    def place(self, output: Mapping[str, Tensor], crops: CropBatch) -> tuple[Tensor, Tensor]:
        """SMPL translations (B, 3) in the camera of the full image, and its focal lengths (B,) in pixels."""
        focals = [
            full_image_focal(self.spec.focal_length, self.spec.input_size[1], *size) for size in crops.image_sizes
        ]
        focal = torch.tensor(focals, device=self.device)
        centers, extents, sizes = (
            torch.from_numpy(value).to(self.device) for value in (crops.box_centers, crops.box_sizes, crops.image_sizes)
        )
        return crop_to_full_translation(self.weak_camera(output), centers, extents, sizes, focal), focal

    def _predict(self, persons: Sequence[Person]) -> dict[str, np.ndarray]:
        crops = crop_persons(persons, self.spec)
        output = self.answer(crops, persons)
        transl, focal = self.place(output, crops)
        joints = self.body(output["pose_rotmat"], output["betas"], transl).joints
        sizes = torch.from_numpy(crops.image_sizes).to(self.device)
        camera = intrinsics(focal, sizes[:, 0], sizes[:, 1])
        result = {"joints_cam": joints, "keypoints_px": project(joints, camera), "transl_cam": transl}
        result |= {"pose_rotmat": output["pose_rotmat"], "betas": output["betas"], "intrinsics": camera}
        return {name: value.float().cpu().numpy() for name, value in result.items()}
