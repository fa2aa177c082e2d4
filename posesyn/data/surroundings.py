"""What lies around a person's box: the picture in which a network looks for them before it looks at them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from posesyn.data.body_region import BodyRegion
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.crops import normalise, normalise_keypoints, normalise_region, variation_affine
from posesyn.data.resampling import warp
from posesyn.geometry.cameras import apply_affine
from posesyn.interfaces import EstimatorSpec
from posesyn.types import Person

# Box sizes that the picture is wide: of 1.2, 1.5 and 2 the best for BlazePose's detector on photographs of sports
# (measured here).
SCALE = 2.0
# Nobody stands upright in the middle of what a detector sees: turned far, and moved. Our own choice.
SCATTER = CropAugmentation(rotation_deg=25.0, rotation_probability=1.0, scale=0.2, shift=0.1, shift_probability=1.0)


def surroundings(
    person: Person,
    spec: EstimatorSpec,
    image: np.ndarray,
    region: BodyRegion | None,
    augment: CropAugmentation | CropVariation | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, np.ndarray]:
    """The rows ``surroundings*`` of a batch (:mod:`posesyn.data.batches`) for one person, float32.

    Args:
        person: In the middle of the picture, but for the scatter.
        spec: Its ``surroundings`` is the side of the picture; its normalisation holds here too.
        image: (H, W, 3) uint8, loaded.
        region: Where the person is; zeros stand for None.
        augment: Scattered by :data:`SCATTER` where the crop is augmented at random, else left as it is.
        rng: Source of the scatter.
    """
    variation = CropVariation()
    if isinstance(augment, CropAugmentation) and rng is not None:
        variation = SCATTER.sample(rng)
    size = (spec.surroundings, spec.surroundings)
    view = replace(spec, input_size=size, box_scale=SCALE, box_aspect=1.0)
    box = np.asarray(person.body_box_xyxy, np.float64)
    affine = variation_affine(box, view, variation)
    corners = apply_affine(affine, np.array([(x, y) for x in box[::2] for y in box[1::2]]))
    rows = {
        "surroundings": normalise(warp(image, affine, size, spec.antialias), spec, variation.colour),
        "surroundings_region": normalise_region(region, affine, size),
        "surroundings_box": normalise_keypoints(np.stack((corners.min(0), corners.max(0))), size),
    }
    return {name: np.asarray(values, np.float32) for name, values in rows.items()}
