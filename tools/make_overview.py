"""Makes docs/images/overview.jpg, the README's picture, from the folder of a finished demo run.

    python tools/make_overview.py runs/demo/seed0

Every pixel is rendered by posesyn; the picture is under the project's licence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from posesyn.data.persons.rendered import RenderedClips
from posesyn.demo.run import WorldSettings, as_2d_annotation
from posesyn.report import clip_overlay, person_crop_overlay
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.reports import load_report

SIDE, GAP, LABEL, COLUMNS = 200, 6, 34, 6


def row(title: str, pictures: list[np.ndarray]) -> np.ndarray:
    """A strip of square pictures below a line of text."""
    strip = np.full((LABEL + SIDE, COLUMNS * (SIDE + GAP) - GAP, 3), 255, np.uint8)
    cv2.putText(strip, title, (2, LABEL - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (40, 40, 40), 1, cv2.LINE_AA)
    for index, picture in enumerate(pictures[:COLUMNS]):
        scaled = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        strip[LABEL:, index * (SIDE + GAP) : index * (SIDE + GAP) + SIDE] = scaled
    return strip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/overview.jpg"))
    args = parser.parse_args()
    seed = int(args.demo.name.removeprefix("seed"))
    noise = WorldSettings().annotation_noise_px
    wild = [as_2d_annotation(p, noise, seed) for p in RenderedClips(ClipStore(args.demo / "world" / "wild"))]
    found = load_report(args.demo / "run" / "extraction", wild)
    store = ClipStore(args.demo / "run" / "clips")
    # One person per clip of the world, else the same failure shows six times.
    worst = list({item.person.track_id: item for item in reversed(found.challenging)}.values())[::-1][:COLUMNS]
    made = [next(row for row in range(len(store)) if store.header(row).person_id == p.person.person_id) for p in worst]
    clips = [store[index] for index in made]
    middle = [clip.frames[len(clip) // 2] for clip in clips]
    overlays = [person_crop_overlay(person) for person in worst]
    picture = np.concatenate(
        [
            row("1  where the estimator fails (green: annotation, orange: prediction)", overlays),
            row("2  synthesized for these poses, dressed and set like persons it does well on", middle),
            row("3  with exact labels", [clip_overlay(clip, len(clip) // 2) for clip in clips]),
        ]
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
