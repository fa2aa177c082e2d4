"""Joint names, trees and equivalences of all joint sets. Data only; :mod:`posesyn.skeletons.skeleton` is the interface.

Orders are those of the data sets' and methods' own code and papers. A joint is written ``name`` or
``name:identity``. The name is unique within its set. The identity says which physical point is meant, so that two sets
agree on a joint exactly if their identities are equal: the SMPL ``left_hip`` (identity ``smpl_left_hip``) is a rotation
centre centimetres away from the ``left_hip`` that COCO annotators click.

The prefix ``op_`` marks the slots of SPIN-49 and HMR2-44 that were made for OpenPose detections; ``op_x`` and ``x``
are the same physical point.
"""

from __future__ import annotations

COCO17 = """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist
right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"""

LSP14 = """right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow right_shoulder
left_shoulder left_elbow left_wrist neck head_top"""

# Head of the evaluation joints: H36M head, not the LSP head top (nkolot/SPIN, constants.py).
EVAL14 = LSP14.replace("head_top", "head:head_h36m")

OP25 = """nose:op_nose neck:op_mid_shoulders right_shoulder:op_right_shoulder right_elbow:op_right_elbow
right_wrist:op_right_wrist left_shoulder:op_left_shoulder left_elbow:op_left_elbow left_wrist:op_left_wrist
mid_hip:op_mid_hips right_hip:op_right_hip right_knee:op_right_knee right_ankle:op_right_ankle left_hip:op_left_hip
left_knee:op_left_knee left_ankle:op_left_ankle right_eye:op_right_eye left_eye:op_left_eye right_ear:op_right_ear
left_ear:op_left_ear left_big_toe:op_left_big_toe left_small_toe:op_left_small_toe left_heel:op_left_heel
right_big_toe:op_right_big_toe right_small_toe:op_right_small_toe right_heel:op_right_heel"""

# The same 25 joints inside a larger set carry the prefix in their name too, to keep names unique.
_OP25_PART = " ".join(f"op_{joint}" for joint in OP25.split())

_LEGS_RIGHT_FIRST = "right_hip right_knee right_ankle left_hip left_knee left_ankle"
_LEGS_LEFT_FIRST = "left_hip left_knee left_ankle right_hip right_knee right_ankle"
_H36M_UPPER = """spine neck jaw head:head_h36m left_shoulder left_elbow left_wrist right_shoulder right_elbow
right_wrist"""

SPIN24 = f"{LSP14} pelvis thorax spine jaw head:head_h36m nose left_eye right_eye left_ear right_ear"

SMPL24 = """pelvis:smpl_pelvis left_hip:smpl_left_hip right_hip:smpl_right_hip spine1:smpl_spine1 left_knee right_knee
spine2:smpl_spine2 left_ankle right_ankle spine3:smpl_spine3 left_foot:smpl_left_foot right_foot:smpl_right_foot
neck:smpl_neck left_collar right_collar head:smpl_head left_shoulder right_shoulder left_elbow right_elbow left_wrist
right_wrist left_hand:smpl_left_hand right_hand:smpl_right_hand"""

_FINGERS = " ".join(
    f"{side}_{finger}_tip" for side in ("left", "right") for finger in ("thumb", "index", "middle", "ring", "pinky")
)

# Eyes and ears are right first here and left first in SMPL-30.
SMPL45 = f"""{SMPL24} nose right_eye left_eye right_ear left_ear left_big_toe left_small_toe left_heel right_big_toe
right_small_toe right_heel {_FINGERS}"""

# Rows of nkolot/SPIN's J_regressor_extra.npy.
_EXTRA9 = """right_hip_lsp:right_hip left_hip_lsp:left_hip neck_lsp:neck head_top pelvis_mpii:pelvis thorax_mpii:thorax
spine_h36m:spine jaw_h36m:jaw head_h36m"""

JOINTS: dict[str, str] = {
    "coco17": COCO17,
    "coco19": f"{COCO17} pelvis:mid_hips neck:mid_shoulders",
    "mpii16": """right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax neck head_top right_wrist
        right_elbow right_shoulder left_shoulder left_elbow left_wrist""",
    "lsp14": LSP14,
    "eval14": EVAL14,
    "eval17": f"{EVAL14} pelvis spine jaw",
    "op25": OP25,
    "op18": """nose neck:mid_shoulders right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
        right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear""",
    "crowdpose14": """left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip
        left_knee right_knee left_ankle right_ankle head_top neck""",
    "jhmdb15": """neck belly head:face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow
        right_knee left_knee right_wrist left_wrist right_ankle left_ankle""",
    "posetrack17": """nose head_bottom head_top left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow
        left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle""",
    "panoptic19": """neck nose mid_hip:mid_hips left_shoulder left_elbow left_wrist left_hip left_knee left_ankle
        right_shoulder right_elbow right_wrist right_hip right_knee right_ankle left_eye left_ear right_eye
        right_ear""",
    "aic14": """right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee
        right_ankle left_hip left_knee left_ankle head_top neck""",
    "halpe26": f"""{COCO17} head:head_top neck:mid_shoulders hip:mid_hips left_big_toe right_big_toe left_small_toe
        right_small_toe left_heel right_heel""",
    # SPIN puts the 3DHP head top into the H36M head slot and the 3DHP head into the jaw slot.
    "3dhp28": """spine3:mpi_spine3 spine4:mpi_spine4 spine2:mpi_spine2 spine pelvis neck head:jaw head_top:head_h36m
        left_clavicle left_shoulder left_elbow left_wrist left_hand:mpi_left_hand right_clavicle right_shoulder
        right_elbow right_wrist right_hand:mpi_right_hand left_hip left_knee left_ankle left_foot:mpi_left_foot
        left_toe:mpi_left_toe right_hip right_knee right_ankle right_foot:mpi_right_foot right_toe:mpi_right_toe""",
    "3dhp17": """head_top:head_h36m neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
        right_hip right_knee right_ankle left_hip left_knee left_ankle pelvis spine head:jaw""",
    "h36m17": f"pelvis {_LEGS_RIGHT_FIRST} {_H36M_UPPER}",
    "h36m17_reg": f"pelvis {_LEGS_LEFT_FIRST} {_H36M_UPPER}",
    # Joints 11 and 24 repeat the coordinates of 0 and 13; only the first of two equal points has the identity.
    "h36m32": """pelvis right_hip right_knee right_ankle right_toe_base:h36m_right_toe right_toe_end:h36m_right_toe_end
        left_hip left_knee left_ankle left_toe_base:h36m_left_toe left_toe_end:h36m_left_toe_end
        pelvis_copy:h36m_pelvis_copy spine neck jaw head:head_h36m left_neck_copy:h36m_left_neck_copy left_shoulder
        left_elbow left_wrist left_thumb:h36m_left_thumb left_thumb_end:h36m_left_thumb_end
        left_hand:h36m_left_hand left_hand_end:h36m_left_hand_end right_neck_copy:h36m_right_neck_copy
        right_shoulder right_elbow right_wrist right_thumb:h36m_right_thumb right_thumb_end:h36m_right_thumb_end
        right_hand:h36m_right_hand right_hand_end:h36m_right_hand_end""",
    "poseaug16": f"pelvis {_LEGS_RIGHT_FIRST} {_H36M_UPPER.replace(' jaw', '')}",
    "smpl24": SMPL24,
    "humanml3d22": " ".join(SMPL24.split()[:22]),
    "smpl45": SMPL45,
    "smpl54": f"{SMPL45} {_EXTRA9}",
    "smpl30": f"{SMPL24} nose left_eye right_eye left_ear right_ear head_top",
    "graph15": """pelvis:smpl_pelvis left_hip:smpl_left_hip right_hip:smpl_right_hip left_knee right_knee left_ankle
        right_ankle neck:smpl_neck head_top left_shoulder right_shoulder left_elbow right_elbow left_wrist
        right_wrist""",
    "hybrik29": SMPL24.replace(" head:", " jaw:")
    .replace("left_hand:", "left_thumb:")
    .replace("right_hand:", "right_thumb:")
    + " head:crown left_middle:left_middle_tip right_middle:right_middle_tip left_big_toe right_big_toe",
    # Left before right. Heels are those of the other sets; the foot's index is the tip of the second toe.
    "blazepose33": """nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear
        right_ear mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist
        left_pinky:left_pinky_knuckle right_pinky:right_pinky_knuckle left_index:left_index_knuckle
        right_index:right_index_knuckle left_thumb:left_thumb_knuckle right_thumb:right_thumb_knuckle left_hip right_hip
        left_knee right_knee left_ankle right_ankle left_heel right_heel left_foot_index right_foot_index""",
    # What every set above has: the joints to compare estimators of different sets by.
    "limbs12": """left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip
        left_knee right_knee left_ankle right_ankle""",
    "spin24": SPIN24,
    "spin49": f"{_OP25_PART} {SPIN24}",
    "hmr2_44": f"{_OP25_PART} {' '.join(SPIN24.split()[:19])}",
}

# (identity, identity, approximate). Read both ways, earlier rows first. Exact rows are points that published
# conversions equate without remark; approximate ones differ by centimetres.
ALIASES: tuple[tuple[str, str, bool], ...] = (
    ("head_top", "head_h36m", False),
    ("left_hip", "smpl_left_hip", True),
    ("right_hip", "smpl_right_hip", True),
    ("neck", "mid_shoulders", True),
    ("neck", "head_bottom", True),
    ("neck", "smpl_neck", True),
    ("head_top", "smpl_head", True),
    ("head_h36m", "smpl_head", True),
    # The rest has no published array: our own choice of the nearest point.
    ("mid_shoulders", "thorax", True),
    ("mid_shoulders", "smpl_neck", True),
    ("thorax", "neck", True),
    ("thorax", "smpl_neck", True),
    ("mid_hips", "pelvis", True),
    ("mid_hips", "smpl_pelvis", True),
    ("pelvis", "smpl_pelvis", True),
    ("head_top", "crown", True),
    ("head_h36m", "crown", True),
    ("spine", "smpl_spine2", True),
    ("spine", "belly", True),
    ("jaw", "nose", True),
    ("face", "nose", True),
    ("left_big_toe", "left_foot_index", True),
    ("right_big_toe", "right_foot_index", True),
    ("smpl_left_hand", "left_index_knuckle", True),
    ("smpl_right_hand", "right_index_knuckle", True),
    ("smpl_left_foot", "left_foot_index", True),
    ("smpl_right_foot", "right_foot_index", True),
)

# What SPIN and HMR2 put into the OpenPose slots of an SMPL body, although better regressed joints exist beside them
# (nkolot/SPIN, constants.py).
OPENPOSE_OF_SMPL: dict[str, str] = {
    "op_left_hip": "smpl_left_hip",
    "op_right_hip": "smpl_right_hip",
    "op_mid_hips": "smpl_pelvis",
    "op_mid_shoulders": "smpl_neck",
}

_LIMBS_OF = {
    f"{side}_{child}": f"{side}_{parent}"
    for side in ("left", "right")
    for child, parent in (("knee", "hip"), ("ankle", "knee"), ("elbow", "shoulder"), ("wrist", "elbow"))
}


def _tree(pairs: str) -> dict[str, str]:
    """``"child:parent ..."`` → parent by child; ``*`` stands for both sides."""
    sided = [pair.replace("*", side) for side in ("left", "right") for pair in pairs.split()]
    return {child: parent for child, parent in (pair.split(":") for pair in sided)}


_SMPL_TREE = _LIMBS_OF | _tree(
    """*_hip:pelvis spine1:pelvis spine2:spine1 spine3:spine2 *_foot:*_ankle neck:spine3 *_collar:spine3 head:neck
    *_shoulder:*_collar *_hand:*_wrist"""
)
_SURFACE_POINTS = _tree(
    """nose:head *_eye:head *_ear:head head_top:head *_big_toe:*_foot *_small_toe:*_foot *_heel:*_ankle
    *_thumb_tip:*_hand *_index_tip:*_hand *_middle_tip:*_hand *_ring_tip:*_hand *_pinky_tip:*_hand"""
)
_H36M_TREE = _LIMBS_OF | _tree("*_hip:pelvis spine:pelvis neck:spine jaw:neck head:jaw *_shoulder:neck")

# Child → parent by name; joints without an entry are roots. SMPL parents: the model file's ``kintree_table``.
TREES: dict[str, dict[str, str]] = {
    "smpl24": _SMPL_TREE,
    "humanml3d22": _SMPL_TREE,
    "smpl45": _SMPL_TREE | _SURFACE_POINTS,
    "smpl30": _SMPL_TREE | _SURFACE_POINTS,
    "hybrik29": _SMPL_TREE | _tree("jaw:neck head:jaw *_big_toe:*_foot *_thumb:*_wrist *_middle:*_thumb"),
    "graph15": _LIMBS_OF | _tree("*_hip:pelvis neck:pelvis head_top:neck *_shoulder:neck"),
    "h36m17": _H36M_TREE,
    "h36m17_reg": _H36M_TREE,
    "poseaug16": _H36M_TREE | {"head": "neck"},
    "3dhp17": _H36M_TREE | {"head": "neck", "head_top": "head"},
    "3dhp28": _LIMBS_OF
    | _tree(
        """spine:pelvis spine2:spine spine3:spine2 spine4:spine3 neck:spine4 head:neck head_top:head *_hip:pelvis
        *_clavicle:neck *_shoulder:*_clavicle *_hand:*_wrist *_foot:*_ankle *_toe:*_foot"""
    ),
    "h36m32": _H36M_TREE
    | _tree(
        """pelvis_copy:pelvis spine:pelvis_copy *_toe_base:*_ankle *_toe_end:*_toe_base *_neck_copy:neck
        *_shoulder:*_neck_copy *_thumb:*_wrist *_thumb_end:*_thumb *_hand:*_wrist *_hand_end:*_hand"""
    ),
}

# Lines to draw for sets without a tree: (joint, first choice, second choice ...); the first that the set has is taken.
DRAWN_BONES: tuple[tuple[str, ...], ...] = (
    *((child, parent) for child, parent in _LIMBS_OF.items()),
    ("left_shoulder", "neck", "thorax", "head_bottom", "right_shoulder"),
    ("right_shoulder", "neck", "thorax", "head_bottom", "left_shoulder"),
    ("left_hip", "pelvis", "mid_hip", "hip", "right_hip"),
    ("right_hip", "pelvis", "mid_hip", "hip", "left_hip"),
    ("neck", "spine", "belly", "pelvis", "mid_hip", "hip", "thorax"),
    ("spine", "pelvis"),
    ("head_top", "neck", "head_bottom"),
    ("head", "neck"),
    ("head_bottom", "nose"),
    ("nose", "neck"),
    ("jaw", "neck"),
    ("left_eye", "nose"),
    ("right_eye", "nose"),
    ("left_ear", "left_eye", "nose"),
    ("right_ear", "right_eye", "nose"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    *((f"{side}_{point}", f"{side}_ankle") for side in ("left", "right") for point in ("big_toe", "heel")),
    *((f"{side}_small_toe", f"{side}_big_toe") for side in ("left", "right")),
    *((f"{side}_foot_index", f"{side}_heel") for side in ("left", "right")),
    *((f"{side}_{finger}", f"{side}_wrist") for side in ("left", "right") for finger in ("pinky", "index", "thumb")),
    ("mouth_left", "mouth_right"),
)
