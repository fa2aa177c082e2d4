"""AGORA's training labels in BEDLAM's form: as BEDLAM, with 11 shape coefficients (the last for children)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from posesyn.data.bedlam import _OPTIONAL, BedlamPersons
from posesyn.data.image_folder import Choice
from posesyn.data.npz_table import Shape


class AgoraPersons(BedlamPersons):
    """Persons of AGORA's npz. Where it has no ``trans_cam``, the fit's translation is unknown and zero
    (``person.meta["translation_known"]``).

    Args:
        annotations, images, stride, on_missing, on_bad, min_keypoints, name: As in
            :class:`posesyn.data.bedlam.BedlamPersons`; images are never turned.

    Raises:
        FileError, UnsafeFileError, InputError: As :class:`posesyn.data.bedlam.BedlamPersons`.
    """

    optional: ClassVar[Mapping[str, Shape]] = {**_OPTIONAL, "bfh": (), "age": (), "kid": ()}
    what = "a training file of AGORA"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        stride: int = 1,
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 8,
        name: str = "agora",
    ) -> None:
        super().__init__(
            annotations,
            images,
            turned=(),
            stride=stride,
            on_missing=on_missing,
            on_bad=on_bad,
            min_keypoints=min_keypoints,
            name=name,
        )

    def _meta(self, row: int) -> dict[str, Any]:
        meta = super()._meta(row)
        for key in ("age", "kid"):
            if key in self._table:
                meta[key] = self._table.text(key, row)
        return meta
