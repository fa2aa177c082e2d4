from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from posesyn.body import load_body
from posesyn.errors import InputError
from posesyn.synthesis.rendering.appearance.appearance import (
    HAIR_STYLES,
    PATTERNS,
    Appearance,
    Garment,
    sample_appearance,
)
from posesyn.synthesis.rendering.mesh.surface import BodySurface, paint, thickness

RED, BLUE, SKIN, GREEN = (200, 20, 20), (20, 20, 200), (200, 160, 130), (20, 180, 20)


@pytest.fixture(scope="module")
def surface():
    return BodySurface(load_body("anny", size="small"))


@pytest.fixture
def look():
    return Appearance(SKIN, (30, 20, 15), "short", Garment(RED), Garment(BLUE), shoes=GREEN, sole=GREEN)


def test_same_seed_same_look_and_the_families_differ():
    for style in ("lab", "wild"):
        first, second = (sample_appearance(np.random.default_rng(5), style) for _ in range(2))
        assert first.to_meta() == second.to_meta()
    lab = [sample_appearance(np.random.default_rng(i), "lab") for i in range(60)]
    wild = [sample_appearance(np.random.default_rng(i), "wild") for i in range(60)]
    assert len({look.top.colour for look in lab}) <= 3 and {look.top.pattern for look in lab} == {"plain"}
    assert len({look.top.colour for look in wild}) > 40 and len({look.top.pattern for look in wild}) > 4
    json.dumps(wild[0].to_meta())


def test_clothes_sit_where_they_belong(surface, look):
    points = surface.points
    colours = paint(points, look)
    main = colours.argmax(1)
    chest = (points.height > 0.4) & (points.height < 0.75) & (points.arm < 0.1)
    thigh = (points.leg > 0.9) & (points.leg_s > 0.3) & (points.leg_s < 0.8)
    foot = (points.foot > 0.9) & (points.leg_s > 2.02)
    assert (main[chest] == 0).all() and (main[thigh] == 2).all() and (main[foot] == 1).all()
    hand = points.hand > 0.95
    skin = colours[hand]
    assert (skin[:, 0] > skin[:, 1]).all() and (skin[:, 1] > skin[:, 2]).all() and skin[:, 0].mean() > 0.3
    forearm = (points.arm > 0.9) & (points.arm_s > 1.2) & (points.arm_s < 1.8)
    bare, covered = paint(points, look)[forearm], paint(points, replace(look, sleeve=1.95))[forearm]
    assert bare[:, 1].mean() > 3 * covered[:, 1].mean()


def test_hair_is_on_top_and_behind_not_in_the_face(surface, look):
    points = surface.points
    dark = paint(points, look).max(1) < 0.04
    top = (points.head > 0.9) & (points.face_up > 0.85)
    cheeks = (points.head > 0.9) & (points.face_forward > 0.6) & (points.face_up < -0.2) & (points.face_up > -0.5)
    assert dark[top].mean() > 0.95 and dark[cheeks].mean() < 0.1
    assert not (paint(points, replace(look, hair_style="bald"))[top].max(1) < 0.04).any()


def test_painting_is_symmetric(surface, look):
    points = surface.points
    red = paint(points, look).argmax(1) == 0
    left, right = points.position[:, 0] > 0.02, points.position[:, 0] < -0.02
    assert red[left].mean() == pytest.approx(red[right].mean(), abs=0.02)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("hair", HAIR_STYLES)
def test_every_pattern_and_hair_gives_valid_colours(surface, look, pattern, hair):
    look = replace(look, hair_style=hair, top=Garment(RED, GREEN, pattern), tucked=True, socks=BLUE, beard=1.0)
    colours = paint(surface.points, look)
    assert colours.shape == (len(surface.points), 3) and np.isfinite(colours).all()
    assert colours.min() >= 0 and colours.max() <= 1
    stands_off = thickness(surface.vertex_points, look)
    assert stands_off.min() >= 0 and stands_off.max() < 0.05


def test_samples_are_found_by_their_barycentrics(surface):
    import torch

    rng = np.random.default_rng(0)
    face = torch.from_numpy(rng.integers(0, len(surface.faces), 500))
    weights = torch.from_numpy(rng.dirichlet([0.5, 0.5, 0.5], 500)).float()
    rows = surface.sample_index(face, weights).numpy()
    corners = surface.rest_vertices[surface.faces[face.numpy()]]
    truth = np.einsum("nk,nkc->nc", weights.numpy(), corners)
    size = np.linalg.norm(corners - corners[:, [1, 2, 0]], axis=-1).max(1)
    assert (np.linalg.norm(surface.points.position[rows] - truth, axis=1) <= 1.3 * size / surface.steps).all()
    assert (rows // surface.samples_per_face == face.numpy()).all()


def test_unknown_names_are_refused(look):
    with pytest.raises(InputError, match="pattern"):
        Garment(RED, pattern="paisley")
    with pytest.raises(InputError, match="hair_style"):
        replace(look, hair_style="mohawk")
    with pytest.raises(InputError, match="style"):
        sample_appearance(np.random.default_rng(0), "vogue")
