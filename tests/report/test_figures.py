from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from posesyn import metrics
from posesyn.body import load_body
from posesyn.errors import FileError, InputError
from posesyn.report import augmentation_figure, figures, save_persons_rerun, write_extraction_pages
from posesyn.report.embedding import encode_figure
from posesyn.report.figures import mesh_overlay
from posesyn.synthesis.augmentation import Augmentor, ViewRange
from tests.factories import make_report, make_scored


@pytest.fixture(scope="module")
def standing():
    """The free body half a turn around x, three metres in front of the camera."""
    body = load_body("anny", size="small")
    with torch.no_grad():
        vertices = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10)).vertices[0].numpy()
    vertices = (vertices - vertices.mean(0)) * [1, -1, -1] + [0, 0, 3]
    return vertices.astype("f4"), body.faces


CAMERA = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])


def test_the_mesh_lies_where_its_vertices_project(standing):
    vertices, faces = standing
    image = np.full((120, 160, 3), 30, np.uint8)
    drawn = mesh_overlay(image, vertices, faces, CAMERA, opacity=1.0)
    touched = (drawn != 30).any(-1)
    pixels = vertices[:, :2] / vertices[:, 2:] * 150 + [80, 60]
    rows, columns = np.nonzero(touched)
    assert abs(columns.min() - pixels[:, 0].min()) < 2 and abs(columns.max() - pixels[:, 0].max()) < 2
    assert abs(rows.min() - pixels[:, 1].min()) < 2 and abs(rows.max() - pixels[:, 1].max()) < 2
    assert (image == 30).all(), "the input stays as it is"
    assert len(np.unique(drawn[touched].sum(-1))) > 20, "shaded, not flat"
    np.testing.assert_array_equal(mesh_overlay(image, vertices, faces, CAMERA, opacity=0.0), image)
    for bad in ({"opacity": 2.0}, {"vertices_cam": np.zeros((4, 2))}, {"intrinsics": np.eye(2)}):
        with pytest.raises(InputError):
            mesh_overlay(**{"image": image, "vertices_cam": vertices, "faces": faces, "intrinsics": CAMERA, **bad})


def test_every_figure_is_returned_and_can_be_saved(standing):
    scored = make_scored()
    vertices, faces = standing
    prediction = replace(scored.prediction, vertices_cam=vertices[None], intrinsics=CAMERA[None])
    made = [
        figures.skeleton_figure(scored),
        figures.skeleton_figure(scored.person),
        figures.skeleton_figure([scored.person, scored.person]),
        figures.mesh_figure(scored.person, prediction, faces),
        figures.side_view_figure(scored.prediction.joints_cam[0], "smpl45"),
        figures.joint_heat_figure(scored),
        figures.joint_heat_figure(replace(scored, joint_used=np.zeros(17, bool))),
        figures.scored_grid([scored] * 3, 2, "$worst"),
        figures.pck_curve({"ours": (np.full((2, 3), 40.0), np.ones((2, 3), bool))}),
    ]
    for figure in made:
        assert isinstance(figure, Figure) and encode_figure(figure, "png")[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="vertices_cam"):
        figures.mesh_figure(scored.person, scored.prediction, faces)
    for call in (lambda: figures.grid_figure([]), lambda: figures.scored_grid([]), lambda: figures.skeleton_figure([])):
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError, match="series 'none'"):
        figures.pck_curve({"none": (np.zeros((1, 2)), np.zeros((1, 2), bool))})


def test_the_pck_curve_is_that_of_the_metrics(rng):
    pred, true = rng.normal(0, 0.06, (40, 14, 3)), np.zeros((40, 14, 3))
    errors = 1000 * np.linalg.norm(pred - true, axis=-1)
    axes = figures.pck_curve({"ours": (errors, np.ones((40, 14), bool))}).axes[0]
    x, y = axes.lines[0].get_data()
    assert y[x == 150][0] == pytest.approx(metrics.pck3d(pred, true))
    shown = re.search(r"mean ([\d.]+) %", axes.get_legend().get_texts()[0].get_text())
    assert float(shown.group(1)) == pytest.approx(metrics.auc3d(pred, true), abs=0.051)


def test_heat_colours_follow_the_errors():
    scored = make_scored()
    offsets = figures.joint_heat_figure(scored, largest=1.0).axes[0].collections[0]
    np.testing.assert_allclose(offsets.get_array(), scored.joint_errors[scored.joint_used])


def test_pages_link_to_each_other(tmp_path):
    report = make_report(12, 6, 4, skipped=(("x<script>", "no joint"),))
    files = write_extraction_pages(tmp_path / "pages", report, per_page=4)
    assert files[0].name == "index.html" and {f.name for f in files[1:4]} == {f"rank-000{i}.html" for i in (1, 2, 3)}
    index = files[0].read_text()
    links = re.findall(r'href="([^"#]+\.html)"', index)
    assert set(links) == {file.name for file in files[1:]}
    assert "x&lt;script&gt;" in index and "<script" not in index
    second = (tmp_path / "pages" / "rank-0002.html").read_text()
    assert 'href="rank-0001.html"' in second and 'href="rank-0003.html"' in second and 'href="index.html"' in second
    assert sum(page.read_text().count("mock/000") > 0 for page in files[1:]) >= 2, "by rank and by joint"
    everyone = write_extraction_pages(tmp_path / "all", report, per_page=12, only_selected=False)
    assert (tmp_path / "all" / "rank-0001.html").read_text().count('class="side-view"') == 12 and len(everyone) > 2
    with pytest.raises(InputError):
        write_extraction_pages(tmp_path / "x", report, per_page=0)


def test_a_recording_of_persons(tmp_path):
    rr = pytest.importorskip("rerun")
    save_persons_rerun(tmp_path / "hard.rrd", [make_scored(0), make_scored(1)])
    assert (tmp_path / "hard.rrd").stat().st_size > 10_000 and rr is not None
    with pytest.raises(InputError, match="no person"):
        save_persons_rerun(tmp_path / "x.rrd", [])
    with pytest.raises(FileError, match="folder"):
        save_persons_rerun(tmp_path / "nowhere" / "x.rrd", [make_scored(0)])


def poses(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal((0.2, 0.0, 5.0), 0.3, (count, 16, 3))


def augmentor(angles: bool = True) -> Augmentor:
    torch.manual_seed(0)
    return Augmentor(views=ViewRange(), angles=angles, lengths=angles).eval()


def test_one_scene_per_pose_and_copy():
    figure = augmentation_figure(augmentor(), poses(2), copies=3)
    assert len(figure.axes) == 6
    # 15 bones each of the recorded and the new pose, two cameras of eight edges, two rings.
    assert {len(axes.lines) for axes in figure.axes} == {15 + 15 + 8 + 8 + 2}


def test_the_new_camera_stands_where_it_sees_the_pose_from():
    network, pose = augmentor(angles=False), poses(1)
    figure = augmentation_figure(network, pose, copies=1, seed=4)
    generator = torch.Generator().manual_seed(4)
    made = network(torch.from_numpy(pose).float(), [torch.randn(1, 48, generator=generator) for _ in range(4)])
    distances = [text.get_text() for text in figure.axes[0].texts]
    assert distances == [f"{np.linalg.norm(pose[0, 0]):.1f} m", f"{float(made.translation.detach().norm()):.1f} m"]
    # Seen from the camera that is drawn, the recorded joints lie where the augmented pose has them.
    eye = np.array(figure.axes[0].texts[1].get_position_3d()) - (0, 0, 0.24)
    direction = eye[[0, 2, 1]] * (1, -1, 1)
    place = direction / np.linalg.norm(direction) * float(made.translation.detach().norm())
    centred = pose[0] - pose[0, 0]
    wanted = made.pose_rt[0].detach().norm(dim=-1).numpy()
    np.testing.assert_allclose(np.linalg.norm(centred - place, axis=-1), wanted, rtol=1e-3)


def test_drawing_leaves_the_network_as_it_was():
    network = augmentor().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    augmentation_figure(network, poses(1), copies=1)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_poses_that_cannot_be_augmented_are_refused():
    with pytest.raises(InputError, match="16"):
        augmentation_figure(augmentor(), poses(2)[:, :14])
    with pytest.raises(InputError, match="copy"):
        augmentation_figure(augmentor(), poses(2), copies=0)
    with pytest.raises(InputError, match="finite"):
        augmentation_figure(augmentor(), np.full((2, 16, 3), np.nan))
