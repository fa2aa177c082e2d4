"""``load_body``: the free body by name, a licensed SMPL body by path."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import smplx
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.body.files import (
    ASSETS,
    NUM_BETAS,
    NUM_JOINTS,
    SIZES,
    BodyArrays,
    find_smpl_file,
    read_free_body,
    read_smpl_file,
    smpl_parents,
)
from posesyn.errors import InputError
from posesyn.geometry import kinematics
from posesyn.types.looks import short_repr


class BodyOutput(NamedTuple):
    """vertices (B, V, 3) and joints (B, 45, 3) in the order ``smpl45``, metres, in the frame of the root rotation."""

    vertices: Tensor
    joints: Tensor

    def __repr__(self) -> str:
        return short_repr(self)


class Body(torch.nn.Module):
    """Linear blend skinning by ``smplx.SMPL`` with 24 joints and 10 betas; moves between devices and dtypes.

    Made by :func:`posesyn.body.load_body`. The pelvis of the rest pose is not at the origin, as in SMPL: with
    translation t the root joint stands at ``rest_joints(betas)[:, 0] + t``.

    Attributes:
        name: ``anny`` or the path of the SMPL file.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        parents: Parents of the 24 joints, -1 for the root.
        uv, uv_faces: (Vt, 2) float32 in [0, 1], v upwards, and (F, 3) int64; None for files without texture
            coordinates.
        part_of_vertex, part_names: (V,) int64 index into the names (``scalp``, ``face``, ``chest``, ``lthigh`` ...);
            None and ``()`` for licensed files.
        vertex_ids: Names and vertices of the joints 24 to 44.
    """

    joint_template: Tensor
    joint_directions: Tensor

    def __init__(self, arrays: BodyArrays, name: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.name = name
        self.faces = arrays.faces.astype(np.int64)
        self.parents = smpl_parents()
        self.uv, self.uv_faces = arrays.uv, arrays.uv_faces
        self.part_of_vertex, self.part_names = arrays.part_of_vertex, arrays.part_names
        self.vertex_ids = dict(arrays.vertex_ids or smplx.vertex_ids.vertex_ids["smplh"])
        count = len(arrays.v_template)
        posedirs = arrays.posedirs
        if posedirs is None:
            posedirs = np.zeros((count, 3, 9 * (NUM_JOINTS - 1)), np.float32)
        data = SimpleNamespace(
            v_template=arrays.v_template,
            shapedirs=arrays.shapedirs,
            posedirs=posedirs,
            J_regressor=arrays.joint_regressor,
            kintree_table=np.stack([np.array(self.parents), np.arange(NUM_JOINTS)]),
            weights=arrays.weights,
            f=self.faces,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # smplx prints a warning about ten shape coefficients
            self.smpl = smplx.SMPLLayer(
                model_path="", data_struct=data, num_betas=NUM_BETAS, vertex_ids=self.vertex_ids, dtype=dtype
            )
        # Rest joints are linear in betas, so they need no vertices.
        regressor = arrays.joint_regressor.astype(np.float64)
        template = torch.as_tensor(regressor @ arrays.v_template, dtype=dtype)
        directions = torch.as_tensor(np.einsum("jv,vck->jck", regressor, arrays.shapedirs), dtype=dtype)
        self.register_buffer("joint_template", template, persistent=False)
        self.register_buffer("joint_directions", directions, persistent=False)

    @property
    def num_vertices(self) -> int:
        return self.smpl.v_template.shape[0]

    @property
    def weights(self) -> Tensor:
        """(V, 24) skinning weights."""
        return self.smpl.lbs_weights

    @property
    def v_template(self) -> Tensor:
        """(V, 3) mean shape in the T-pose."""
        return self.smpl.v_template

    def forward(
        self,
        pose_rotmat: Float[Tensor, "B 24 3 3"],
        betas: Float[Tensor, "B 10"],
        transl: Float[Tensor, "B 3"] | None = None,
    ) -> BodyOutput:
        """Poses the body by local rotations, root first; one row of betas serves the whole batch; translated at the
        end.

        Raises:
            InputError: Wrong shapes.
        """
        pose_rotmat, betas, transl = self._check(pose_rotmat, betas, transl)
        output = self.smpl(betas=betas, global_orient=pose_rotmat[:, :1], body_pose=pose_rotmat[:, 1:], transl=transl)
        return BodyOutput(output.vertices, output.joints)

    def rest_joints(self, betas: Float[Tensor, "B 10"]) -> Float[Tensor, "B 24 3"]:
        """Joints of the T-pose for each shape."""
        if betas.ndim != 2 or betas.shape[1] != NUM_BETAS:
            raise InputError("betas has the wrong shape", expected=f"(B, {NUM_BETAS})", got=tuple(betas.shape))
        return self.joint_template + torch.einsum("bk,jck->bjc", betas, self.joint_directions)

    def joints_only(
        self,
        pose_rotmat: Float[Tensor, "B 24 3 3"],
        betas: Float[Tensor, "B 10"],
        transl: Float[Tensor, "B 3"] | None = None,
    ) -> Float[Tensor, "B 24 3"]:
        """The first 24 joints of ``forward`` without skinning; differentiable."""
        pose_rotmat, betas, transl = self._check(pose_rotmat, betas, transl)
        offsets = kinematics.offsets_from_joints(self.rest_joints(betas), self.parents)
        joints, _ = kinematics.forward_kinematics(pose_rotmat, offsets, self.parents)
        return joints if transl is None else joints + transl[:, None]

    def _check(self, pose_rotmat: Tensor, betas: Tensor, transl: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        where = f"body '{self.name}'"
        if pose_rotmat.ndim != 4 or tuple(pose_rotmat.shape[1:]) != (NUM_JOINTS, 3, 3):
            wanted, got = f"(B, {NUM_JOINTS}, 3, 3)", tuple(pose_rotmat.shape)
            fix = "convert rotation vectors with geometry.rotations.rotvec_to_matrix"
            raise InputError("pose_rotmat has the wrong shape", where=where, expected=wanted, got=got, fix=fix)
        batch = len(pose_rotmat)
        for name, value, width in (("betas", betas, NUM_BETAS), ("transl", transl, 3)):
            if value is not None and tuple(value.shape) not in ((1, width), (batch, width)):
                wanted, got = f"({batch}, {width})", tuple(value.shape)
                raise InputError(f"{name} has the wrong shape", where=where, expected=wanted, got=got)
        # smplx adds the translation in place, so an expanded row must not reach it for a batch of views.
        return pose_rotmat, betas.expand(batch, -1), None if transl is None else transl.expand(batch, -1)


def load_body(
    path_or_name: str | Path = "anny", size: str = "full", gender: str = "neutral", dtype: torch.dtype = torch.float32
) -> Body:
    """Loads a body.

    Args:
        path_or_name: ``anny``, the free body that posesyn ships; ``smpl``, a licensed SMPL body at the place named by
            the environment variable ``POSESYN_SMPL``; or the path of a SMPL ``.pkl`` or ``.npz`` file or of a folder
            of them.
        size: ``full`` (13,718 vertices) or ``small`` (1,200 vertices, for crops of about 128 pixels; same joints, same
            betas). SMPL has its 6,890 vertices only.
        gender: ``neutral``, ``male`` or ``female``: which file of a folder. The free body holds both sexes in its
            betas.
        dtype: Floating type of the module.

    Raises:
        InputError: Unknown size or gender.
        FileError: The file is missing, damaged or no SMPL model; for a missing one the message says where to get it.
        UnsafeFileError: The file asks to run code. Nothing was run.

    Example:
        >>> body = load_body(size="small")
        >>> body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10)).joints.shape
        torch.Size([1, 45, 3])
    """
    if size not in SIZES:
        raise InputError("unknown body size", where="load_body", expected=" or ".join(SIZES), got=size)
    if path_or_name == "anny":
        if gender != "neutral":
            problem, fix = "the free body has no separate genders", "both sexes lie in the span of its betas"
            raise InputError(problem, where="load_body", expected="gender='neutral'", got=gender, fix=fix)
        return Body(read_free_body(ASSETS / f"body_{size}.npz"), "anny", dtype)
    if size != "full":
        where, fix = f"load_body({str(path_or_name)!r})", 'leave size at "full"'
        raise InputError("only the free body has a small version", where=where, got=size, fix=fix)
    path = find_smpl_file(None if path_or_name == "smpl" else path_or_name, gender)
    return Body(read_smpl_file(path), str(path), dtype)
