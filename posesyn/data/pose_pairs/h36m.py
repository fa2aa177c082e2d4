"""Human3.6M poses of VideoPose3D's ``data_3d_h36m.npz`` and ``data_2d_h36m_*.npz``: poses without images.

The npz files hold pickled dictionaries; they are read without running anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.storage.files import read_npz
from posesyn.types.looks import short_repr

# Name → focal length x, y; principal point x, y; radial k1, k2, k3; tangential p1, p2; width, height (pixels).
_INTRINSICS: dict[str, tuple[float, ...]] = {
    "54138969": (1145.0494384765625, 1143.7811279296875, 512.54150390625, 515.4514770507812,
                 -0.20709891617298126, 0.24777518212795258, -0.0030751503072679043,
                 -0.0009756988729350269, -0.00142447161488235, 1000, 1002),
    "55011271": (1149.6756591796875, 1147.5916748046875, 508.8486328125, 508.0649108886719,
                 -0.1942136287689209, 0.2404085397720337, 0.006819975562393665,
                 -0.0016190266469493508, -0.0027408944442868233, 1000, 1000),
    "58860488": (1149.1407470703125, 1148.7989501953125, 519.8158569335938, 501.40264892578125,
                 -0.2083381861448288, 0.25548800826072693, -0.0024604974314570427,
                 0.0014843869721516967, -0.0007599993259645998, 1000, 1000),
    "60457274": (1145.5113525390625, 1144.77392578125, 514.9682006835938, 501.88201904296875,
                 -0.198384091258049, 0.21832367777824402, -0.008947807364165783,
                 -0.0005872055771760643, -0.0018133620033040643, 1000, 1002),
}  # fmt: skip

# Subject → per camera, in the order above: quaternion w, x, y, z and position x, y, z.
_EXTRINSICS: dict[str, tuple[tuple[float, ...], ...]] = {
    "S1": (
        (0.1407056450843811, -0.1500701755285263, -0.755240797996521, 0.6223280429840088,
         1841.1070556640625, 4955.28466796875, 1563.4454345703125),
        (0.6157187819480896, -0.764836311340332, -0.14833825826644897, 0.11794740706682205,
         1761.278564453125, -5078.0068359375, 1606.2650146484375),
        (0.14651472866535187, -0.14647851884365082, 0.7653023600578308, -0.6094175577163696,
         -1846.7777099609375, 5215.04638671875, 1491.972412109375),
        (0.5834008455276489, -0.7853162288665771, 0.14548823237419128, -0.14749594032764435,
         -1794.7896728515625, -3722.698974609375, 1574.8927001953125),
    ),
    "S5": (
        (0.1467377245426178, -0.162370964884758, -0.7551892995834351, 0.6178938746452332,
         2097.3916015625, 4880.94482421875, 1605.732421875),
        (0.6159758567810059, -0.7626792192459106, -0.15728192031383514, 0.1189815029501915,
         2031.7008056640625, -5167.93310546875, 1612.923095703125),
        (0.14291371405124664, -0.12907841801643372, 0.7678384780883789, -0.6110143065452576,
         -1620.5948486328125, 5171.65869140625, 1496.43701171875),
        (0.5920479893684387, -0.7814217805862427, 0.1274748593568802, -0.15036417543888092,
         -1637.1737060546875, -3867.3173828125, 1547.033203125),
    ),
    "S6": (
        (0.1337897777557373, -0.15692396461963654, -0.7571090459823608, 0.6198879480361938,
         1935.4517822265625, 4950.24560546875, 1618.0838623046875),
        (0.6147197484970093, -0.7628812789916992, -0.16174767911434174, 0.11819244921207428,
         1969.803955078125, -5128.73876953125, 1632.77880859375),
        (0.1529948115348816, -0.13529130816459656, 0.7646096348762512, -0.6112781167030334,
         -1769.596435546875, 5185.361328125, 1476.993408203125),
        (0.5916101336479187, -0.7804774045944214, 0.12832270562648773, -0.1561593860387802,
         -1721.668701171875, -3884.13134765625, 1540.4879150390625),
    ),
    "S7": (
        (0.1435241848230362, -0.1631336808204651, -0.7548328638076782, 0.6188824772834778,
         1974.512939453125, 4926.3544921875, 1597.8326416015625),
        (0.6141672730445862, -0.7638262510299683, -0.1596645563840866, 0.1177929937839508,
         1937.0584716796875, -5119.7900390625, 1631.5665283203125),
        (0.14550060033798218, -0.12874816358089447, 0.7660516500473022, -0.6127139329910278,
         -1741.8111572265625, 5208.24951171875, 1464.8245849609375),
        (0.5912848114967346, -0.7821764349937439, 0.12445473670959473, -0.15196487307548523,
         -1734.7105712890625, -3832.42138671875, 1548.5830078125),
    ),
    "S8": (
        (0.14110587537288666, -0.15589867532253265, -0.7561917304992676, 0.619644045829773,
         2150.65185546875, 4896.1611328125, 1611.9046630859375),
        (0.6169601678848267, -0.7647668123245239, -0.14846350252628326, 0.11158157885074615,
         2219.965576171875, -5148.453125, 1613.0440673828125),
        (0.1471444070339203, -0.13377119600772858, 0.7670128345489502, -0.6100369691848755,
         -1571.2215576171875, 5137.0185546875, 1498.1761474609375),
        (0.5927824378013611, -0.7825870513916016, 0.12147816270589828, -0.14631995558738708,
         -1476.913330078125, -3896.7412109375, 1547.97216796875),
    ),
    "S9": (
        (0.15540587902069092, -0.15548215806484222, -0.7532095313072205, 0.6199594736099243,
         2044.45849609375, 4935.1171875, 1481.2275390625),
        (0.618784487247467, -0.7634735107421875, -0.14132238924503326, 0.11933968216180801,
         1990.959716796875, -5123.810546875, 1568.8048095703125),
        (0.13357827067375183, -0.1367100477218628, 0.7689454555511475, -0.6100738644599915,
         -1670.9921875, 5211.98583984375, 1528.387939453125),
        (0.5879399180412292, -0.7823407053947449, 0.1427614390850067, -0.14794869720935822,
         -1696.04345703125, -3827.099853515625, 1591.4127197265625),
    ),
    "S11": (
        (0.15232472121715546, -0.15442320704460144, -0.7547563314437866, 0.6191070079803467,
         2098.440185546875, 4926.5546875, 1500.278564453125),
        (0.6189449429512024, -0.7600917220115662, -0.15300633013248444, 0.1255258321762085,
         2083.182373046875, -4912.1728515625, 1561.07861328125),
        (0.14943228662014008, -0.15650227665901184, 0.7681233882904053, -0.6026304364204407,
         -1609.8153076171875, 5177.3359375, 1537.896728515625),
        (0.5894251465797424, -0.7818877100944519, 0.13991211354732513, -0.14715361595153809,
         -1590.738037109375, -3854.1689453125, 1578.017578125),
    ),
}  # fmt: skip

CAMERAS = tuple(_INTRINSICS)
SUBJECTS = tuple(_EXTRINSICS)


@dataclass(frozen=True, eq=False)
class LabCamera:
    """One calibrated camera.

    Attributes:
        name: The camera's number.
        intrinsics: (3, 3) pixels.
        distortion: (5,) k1, k2, p1, p2, k3 in OpenCV's order.
        rotation, translation: World → camera, (3, 3) and (3,) metres; OpenCV camera (x right, y down, z forward).
        size: (width, height) pixels.
    """

    name: str
    intrinsics: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    size: tuple[int, int]

    def to_camera(self, points_world: np.ndarray) -> np.ndarray:
        """(..., 3) metres of the data set's world → the camera's frame."""
        return np.asarray(points_world) @ self.rotation.T + self.translation

    def project(self, points_cam: np.ndarray, distort: bool = True) -> np.ndarray:
        """(..., 3) metres → (..., 2) pixels, by OpenCV's model with five coefficients."""
        rays = points_cam[..., :2] / points_cam[..., 2:]
        if distort:
            k1, k2, p1, p2, k3 = self.distortion
            x, y = rays[..., 0], rays[..., 1]
            square = x * x + y * y
            radial = 1 + square * (k1 + square * (k2 + square * k3))
            dx = 2 * p1 * x * y + p2 * (square + 2 * x * x)
            dy = p1 * (square + 2 * y * y) + 2 * p2 * x * y
            rays = np.stack((x * radial + dx, y * radial + dy), -1)
        return rays * self.intrinsics[[0, 1], [0, 1]] + self.intrinsics[:2, 2]


def h36m_camera(subject: str, camera: str) -> LabCamera:
    """A camera as it stood for one subject.

    Args:
        subject: ``"S1"`` … ``"S11"``; S2, S3, S4 and S10 have no public calibration.
        camera: ``"54138969"``, ``"55011271"``, ``"58860488"`` or ``"60457274"``.

    Raises:
        InputError: Unknown subject or camera.
    """
    if subject not in _EXTRINSICS or camera not in _INTRINSICS:
        raise InputError(
            "no calibration is known",
            where=f"subject '{subject}', camera '{camera}'",
            expected=f"one of {', '.join(SUBJECTS)} and of {', '.join(CAMERAS)}",
        )
    fx, fy, cx, cy, k1, k2, k3, p1, p2, width, height = _INTRINSICS[camera]
    w, x, y, z, *position = _EXTRINSICS[subject][CAMERAS.index(camera)]
    intrinsics, distortion = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array([k1, k2, p1, p2, k3])
    to_world = Rotation.from_quat([x, y, z, w]).as_matrix()
    translation = -to_world.T @ (np.array(position) / 1000)
    return LabCamera(camera, intrinsics, distortion, to_world.T, translation, (int(width), int(height)))


FPS = 50.0
TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
# Joints by number of the arrays that VideoPose3D and PoseAug publish (jfzhang95/PoseAug, data/prepare_data_h36m.py).
_JOINT_SETS = {32: "h36m32", 17: "h36m17", 16: "poseaug16"}
# A person's pelvis lies within this many metres of the world's origin; millimetres would be thousands. Our own choice.
_LARGEST_COORDINATE_M = 50.0


@dataclass(frozen=True, eq=False)
class H36MSequence:
    """One action of one subject as one camera sees it.

    Attributes:
        subject, action, camera: ``"S9"``, ``"Walking 1"``, ``"54138969"``.
        joints_cam: (T, J, 3) float32 metres, camera frame, absolute.
        keypoints_px: (T, J, 2) float32 pixels: detections or ground truth of the 2D file, else the projection.
        skeleton: Joint order of both.
        calibration: The camera.
        fps: Frames per second.
    """

    subject: str
    action: str
    camera: str
    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    skeleton: str
    calibration: LabCamera
    fps: float = FPS

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.joints_cam)


class H36MPoses:
    """All sequences of ``data_3d_h36m.npz``, by subject, action and camera.

    Args:
        positions: ``data_3d_h36m.npz``: ``positions_3d`` = {subject: {action: (T, 32, 3) metres, world (z up)}}; files
            cut to 17 or 16 joints are read too.
        keypoints: ``data_2d_h36m_gt.npz`` or a file of detections: ``positions_2d`` = {subject: {action: [per camera
            (T, 16 or 17, 2) pixels]}} in Human3.6M's order; files whose ``metadata`` names another layout (COCO, MPII)
            are refused. None: 2D points are projections, lens distortion included.
        skeleton: Joint order to give: ``"h36m17"`` (CANON: right leg first) or ``"poseaug16"``.

    Raises:
        FileError: A file is missing or damaged.
        UnsafeFileError: A file asks to run code. Nothing was run.
        InputError: Another file, another number of joints, or coordinates that are not metres.
    """

    def __init__(
        self,
        positions: str | os.PathLike[str],
        keypoints: str | os.PathLike[str] | None = None,
        *,
        skeleton: str = "h36m17",
    ) -> None:
        self.path = Path(positions)
        self.skeleton = skeletons.get(skeleton).name
        self._positions = _table(self.path, "positions_3d", "data_3d_h36m.npz")
        self.keypoints_path = None if keypoints is None else Path(keypoints)
        self._keypoints = None
        if self.keypoints_path is not None:
            self._keypoints = _table(self.keypoints_path, "positions_2d", "data_2d_h36m_gt.npz")
        for subject, action in self.sequences():
            self._source(subject, action)

    def __repr__(self) -> str:
        return short_repr(self, path=self.path, keypoints=self.keypoints_path, skeleton=self.skeleton)

    def sequences(self, subjects: tuple[str, ...] | None = None) -> Iterator[tuple[str, str]]:
        """(subject, action) of everything in the file, or of some subjects.

        Raises:
            InputError: Names of subjects that the file has not.
        """
        # "S1" is in "S11": a bare name would take more subjects than asked for.
        unknown = {subjects} if isinstance(subjects, str) else set(subjects or ()) - self._positions.keys()
        if unknown:
            raise InputError(
                "the file has no such subjects", where=self.path, expected=f"a tuple of {sorted(self._positions)}",
                got=sorted(unknown),
            )  # fmt: skip
        for subject, actions in self._positions.items():
            if subjects is None or subject in subjects:
                yield from ((subject, action) for action in actions)

    def joints_world(self, subject: str, action: str) -> np.ndarray:
        """(T, J, 3) float32 metres in the data set's world (z up), order ``skeleton``."""
        return self._ordered(*self._source(subject, action))

    def sequence(self, subject: str, action: str, camera: str) -> H36MSequence:
        """One sequence in a camera's frame.

        Raises:
            InputError: Unknown names, or 2D arrays that do not fit the 3D ones.
        """
        calibration = h36m_camera(subject, camera)
        joints = calibration.to_camera(self.joints_world(subject, action).astype(np.float64))
        if self._keypoints is None:
            pixels = calibration.project(joints)
        else:
            # The 2D arrays of some files are a few frames longer than the 3D ones (VideoPose3D cuts them).
            pixels = self._pixels(subject, action, CAMERAS.index(camera))
            length = min(len(pixels), len(joints))
            pixels, joints = pixels[:length], joints[:length]
        joints, pixels = joints.astype(np.float32), pixels.astype(np.float32)
        return H36MSequence(subject, action, camera, joints, pixels, self.skeleton, calibration)

    def views(self, subjects: tuple[str, ...] | None = None) -> Iterator[H36MSequence]:
        """Every sequence of the subjects in all four cameras, one at a time."""
        for subject, action in self.sequences(subjects):
            for camera in CAMERAS:
                yield self.sequence(subject, action, camera)

    def _source(self, subject: str, action: str) -> tuple[np.ndarray, str]:
        try:
            array = np.asarray(self._positions[subject][action])
        except KeyError as error:
            expected, got = f"subjects {sorted(self._positions)}", f"{subject}, {action}"
            raise InputError("the file has no such sequence", where=self.path, expected=expected, got=got) from error
        where = f"{self.path}, {subject} '{action}'"
        if array.ndim != 3 or array.shape[1] not in _JOINT_SETS or array.shape[2] != 3:
            expected = "(T, 32, 3), (T, 17, 3) or (T, 16, 3)"
            raise InputError("a sequence has the wrong shape", where=where, expected=expected, got=array.shape)
        if not np.isfinite(array).all() or (array.size and np.abs(array).max() > _LARGEST_COORDINATE_M):
            raise InputError(
                "coordinates are not metres",
                where=where,
                expected=f"finite, at most {_LARGEST_COORDINATE_M:g}",
                got=f"up to {np.abs(array).max():g}",
                fix="divide by 1000 if the file holds millimetres",
            )
        return array, _JOINT_SETS[array.shape[1]]

    def _pixels(self, subject: str, action: str, row: int) -> np.ndarray:
        where = f"{self.keypoints_path}, {subject} '{action}'"
        try:
            array = np.asarray(self._keypoints[subject][action][row])  # type: ignore[index]
        except (KeyError, IndexError) as error:
            raise InputError("the 2D file lacks a sequence of the 3D file", where=where, got=error) from error
        if array.ndim != 3 or array.shape[1] not in _JOINT_SETS or array.shape[2] not in (2, 3):
            raise InputError("a 2D sequence has the wrong shape", where=where, expected="(T, J, 2)", got=array.shape)
        return self._ordered(array[..., :2], _JOINT_SETS[array.shape[1]])

    def _ordered(self, array: np.ndarray, source: str) -> np.ndarray:
        points, present = skeletons.convert(array, source, self.skeleton)
        if not present[0].all():
            names = [skeletons.get(self.skeleton).joints[i] for i in np.flatnonzero(~present[0])]
            fix = f"read the file with skeleton='{source}'"
            raise InputError(f"'{source}' has no {', '.join(names)}", where=self.path, fix=fix)
        return points


def _table(path: Path, key: str, usual: str) -> Mapping[str, Mapping[str, Any]]:
    content = read_npz(path, objects=True)
    metadata = _bare(content.get("metadata"))
    layout = (metadata.get("layout_name") if isinstance(metadata, Mapping) else None) or "h36m"
    if layout != "h36m":
        raise InputError(
            "the 2D joints are in another order than Human3.6M's",
            where=path,
            expected="layout_name 'h36m'",
            got=f"layout_name '{layout}'",
            fix="take data_2d_h36m_gt.npz or detections that were tuned on Human3.6M, e.g. cpn_ft_h36m_dbb",
        )
    table = _bare(content.get(key))
    if not isinstance(table, Mapping) or not all(isinstance(value, Mapping) and value for value in table.values()):
        expected = f"an array '{key}' that holds subjects and actions, as in {usual}"
        raise InputError(
            "this is not a file of VideoPose3D", where=path, expected=expected, got=f"arrays {sorted(content)}"
        )
    return table


def _bare(value: Any) -> Any:
    """An object out of the array of shape () that numpy wraps it in."""
    return value.item() if isinstance(value, np.ndarray) and value.shape == () else value
