"""The shape annotations hold: every public function is called under jaxtyping and beartype."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, jaxtyped

from posesyn import skeletons
from posesyn.geometry import cameras, kinematics, procrustes, rotations

SMPL = skeletons.get("smpl24").parents
EYE = torch.eye(3).expand(2, 24, 3, 3)
VECTORS, QUATS, BOX = torch.rand(2, 24, 3), torch.rand(2, 24, 4), (0.0, 0.0, 8.0, 9.0)
CAM, TWO = torch.rand(2, 3), torch.rand(2, 2)
AFFINE = np.eye(2, 3)
CALLS = {
    rotations: {
        "rotvec_to_matrix": (VECTORS,),
        "matrix_to_rotvec": (EYE,),
        "rot6d_to_matrix": (torch.rand(2, 24, 6), "contiguous"),
        "matrix_to_rot6d": (EYE, "interleaved"),
        "quat_to_matrix": (QUATS,),
        "slerp": (EYE, EYE[0], torch.rand(2, 24)),
        "rotation_between": (VECTORS, VECTORS[0]),
    },
    procrustes: {
        "similarity_align": (VECTORS, VECTORS, torch.ones(2, 24)),
        "similarity_transform": (VECTORS, VECTORS),
    },
    kinematics: {
        "forward_kinematics": (EYE, VECTORS[0], SMPL, CAM),
        "local_to_global": (EYE, SMPL),
        "global_to_local": (EYE, SMPL),
        "offsets_from_joints": (VECTORS, SMPL),
    },
    cameras: {
        "project": (VECTORS, torch.eye(3)),
        "intrinsics": (500.0, torch.tensor([64, 32]), 64),
        "full_image_focal": (5000, 256, 640, 480),
        "padded_box": (BOX, 224),
        "crop_affine": (np.array(BOX), (256, 192), 1.2, 0.75),
        "apply_affine": (AFFINE, np.zeros((5, 2))),
        "invert_affine": (AFFINE,),
        "crop_intrinsics": (np.eye(3), AFFINE),
        "weak_perspective_to_translation": (CAM, 5000, 224),
        "crop_to_full_translation": (CAM, TWO, torch.rand(2), TWO, torch.rand(2)),
        "look_at": (CAM, torch.zeros(3)),
        "world_to_cam": (VECTORS, torch.eye(3), torch.zeros(3)),
        "in_plane_rotation": (torch.rand(2),),
    },
}
PAIRS = [(module, name) for module, calls in CALLS.items() for name in calls]


def _checked(function):
    return jaxtyped(function, typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))


@pytest.mark.parametrize("module, name", PAIRS, ids=[name for _, name in PAIRS])
def test_shapes_are_as_annotated(module, name):
    _checked(getattr(module, name))(*CALLS[module][name])


def test_no_public_function_is_left_out():
    for module, calls in CALLS.items():
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        assert {n for n in own if not n.startswith("_")} == set(calls)


def test_a_wrong_shape_is_noticed():
    with pytest.raises(TypeCheckError):
        _checked(rotations.rotvec_to_matrix)(torch.zeros(2, 4))
