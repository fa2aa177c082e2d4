"""Protocols on fits of the free body: its geometry is enough, no licensed file is needed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn import metrics, skeletons
from posesyn.body import load_body
from posesyn.data.persons.coco import CocoKeypoints
from posesyn.data.persons.rendered import rotation_matrices
from posesyn.errors import FileError, InputError
from posesyn.evaluation.bodies import FittedBodies, load_regressor
from posesyn.evaluation.protocols import METRICS_2D, METRICS_3D, PROTOCOLS, Protocol
from posesyn.evaluation.results import compare, load_evaluation, text_table
from posesyn.evaluation.scoring import evaluate
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.interfaces import EstimatorSpec
from posesyn.types import ArrayImage, BodyFit, JointTruth, Person, PoseBatch

IMAGE = ArrayImage(np.zeros((48, 64, 3), np.uint8))


class SmallBodies(FittedBodies):
    """The free body with 1,200 vertices for every gender."""

    def __init__(self) -> None:
        super().__init__("anny")
        self._bodies["neutral"] = load_body("anny", size="small")


@pytest.fixture(scope="module")
def bodies():
    return SmallBodies()


def fitted_persons(rng, bodies, count=12):
    """Persons with random poses in front of a turned camera, in four sequences."""
    persons = []
    for row in range(count):
        camera = np.eye(4)
        camera[:3, :3] = Rotation.from_euler("yx", (20 * row, 5), degrees=True).as_matrix()
        camera[:3, 3] = (0.1, 0.2, 4)
        pose = rng.normal(0, 0.25, (24, 3))
        fit = BodyFit(pose, rng.normal(0, 1, 10), rng.normal(0, 0.3, 3), "female", "smpl", camera)
        _, joints = bodies.pose([fit])
        keypoints = joints[0, :24, :2] / joints[0, :24, 2:] * 900 + 400
        facts = {
            "sequence": f"s{row % 4}", "frame": row, "valid": row != 5, "action": "walk" if row % 2 else "sit",
            "intrinsics": [[900, 0, 400], [0, 900, 400], [0, 0, 1]],
        }  # fmt: skip
        truth = JointTruth(joints[0, :24], np.ones(24, bool), "smpl24")
        box = np.concatenate((keypoints.min(0) - 5, keypoints.max(0) + 5))
        persons.append(
            Person(f"p/{row:02d}", IMAGE, box, keypoints, np.ones(24, bool), "smpl24", joints=truth, fit=fit, **facts)
        )
    return persons


class Answers:
    """Says the truth with noise on body joints (metres) and turns everything by an angle."""

    def __init__(self, bodies, noise=0.0, mesh=True, seed=0):
        self.spec = EstimatorSpec(f"noise {noise}", skeleton="smpl45")
        self.bodies, self.noise, self.mesh, self.rng = bodies, noise, mesh, np.random.default_rng(seed)

    def predict(self, persons):
        vertices, joints = self.bodies.pose([person.fit for person in persons])
        shift = self.rng.normal(0, 1, joints.shape) * self.noise
        keypoints = joints[..., :2] / joints[..., 2:] * 900 + 400
        pose = np.stack([rotation_matrices(person.fit.pose_rotvec) for person in persons])
        pose[:, 0] = np.stack([person.fit.world_to_cam[:3, :3] for person in persons]) @ pose[:, 0]
        return PoseBatch(
            tuple(person.person_id for person in persons), "smpl45", (joints + shift).astype("f4"), keypoints,
            pose_rotmat=pose, betas=np.stack([person.fit.betas for person in persons]),
            vertices_cam=vertices + shift[:, :1].astype("f4") if self.mesh else None,
        )  # fmt: skip


def h36m_like(body, mirrored=False):
    """A made-up regressor: weights of the body's own joints, in either of the two leg orders."""
    skin = body.weights.numpy().T
    rows = skeletons.mapping("smpl24", "h36m17_reg" if mirrored else "h36m17")
    rows = np.where(rows < 0, 12, rows)
    matrix = skin[rows] + 1e-6
    return matrix / matrix.sum(1, keepdims=True)


@pytest.fixture
def regressor(bodies, tmp_path):
    def make(mirrored=False):
        np.save(tmp_path / "J_regressor_h36m_correct.npy", h36m_like(bodies.body("neutral"), mirrored))
        template = bodies.body("neutral").v_template.numpy()
        return load_regressor(tmp_path / "J_regressor_h36m_correct.npy", template)

    return make


def test_the_default_is_24_smpl_joints(rng, bodies):
    persons = fitted_persons(rng, bodies)
    result = evaluate(Answers(bodies, 0.05), persons, batch_size=5)
    predicted = np.concatenate(
        [estimator.predict(persons[i : i + 5]).joints_cam for estimator in [Answers(bodies, 0.05)] for i in (0, 5, 10)]
    )[:, :24]
    true = np.stack([person.joints.joints_cam for person in persons])
    np.testing.assert_allclose(result.mpjpe_mm, metrics.mpjpe(predicted, true, root=0, reduce="none"), rtol=1e-4)
    np.testing.assert_allclose(result.pa_mpjpe_mm, metrics.pa_mpjpe(predicted, true, reduce="none"), rtol=1e-4)
    assert result.protocol.startswith("24 SMPL joints") and result.summary()["persons"] == 12
    assert list(result.summary()) == ["persons", "MPJPE [mm]", "PA-MPJPE [mm]"]
    np.testing.assert_allclose(result.joint_errors.mean(1), result.mpjpe_mm, rtol=1e-4)
    assert set(result.by_joint()) == set(skeletons.get("smpl24").joints) and result.by_joint()["pelvis"] == 0


@pytest.mark.parametrize("name", ["3dpw-spin14", "3dpw-crowdnet14", "3dpw-wham14", "emdb-spin14"])
def test_protocols_on_meshes(rng, bodies, regressor, name):
    persons, made = fitted_persons(rng, bodies), regressor()
    perfect = evaluate(Answers(bodies), persons, protocol=name, regressor=made, bodies=bodies)
    assert len(perfect.person_ids) == 11 and perfect.skipped == (("p/05", "its frame is marked invalid"),)
    assert list(perfect.values) == ["MPJPE [mm]", "PA-MPJPE [mm]", "PVE [mm]"] and perfect.joints[12:] == (
        "neck",
        "head",
    )
    assert max(value.max() for value in perfect.values.values()) < 0.01
    posed = evaluate(Answers(bodies, mesh=False), persons, protocol=name, regressor=made, bodies=bodies)
    assert max(value.max() for value in posed.values.values()) < 0.05, "parameters alone give the same mesh"
    settings = perfect.settings
    assert settings["joint_regressor_order"] == "h36m17" and settings["joint_regressor"].endswith("_correct.npy")
    assert (
        settings["name"] == name
        and len(settings["joint_names"]) == 14
        and "no reflection" in str(settings["alignment"])
    )


def test_a_regressor_in_the_other_order_is_recognised_and_gives_the_same_numbers(rng, bodies, regressor):
    persons = fitted_persons(rng, bodies, 4)
    results = []
    for mirrored in (False, True):
        made = regressor(mirrored)  # the file name is the same, only its rows differ
        assert made.skeleton == ("h36m17_reg" if mirrored else "h36m17")
        moved = Answers(bodies, 0.03, seed=1)
        results.append(evaluate(moved, persons, protocol="3dpw-wham14", regressor=made, bodies=bodies))
    np.testing.assert_allclose(results[0].joint_errors, results[1].joint_errors, atol=1e-3)


def test_pve_is_aligned_at_the_named_root(rng, bodies):
    persons = fitted_persons(rng, bodies, 4)
    result = evaluate(Answers(bodies), persons, protocol="agora-smpl24", bodies=bodies)
    assert result.values["PVE [mm]"].max() < 0.01 and result.settings["ground_truth_body"] == "anny"
    assert result.settings["joint_regressor"] is None


def test_fits_become_labels(rng, bodies):
    person = fitted_persons(rng, bodies, 1)[0]
    labels = bodies.labels(person)
    body = bodies.body("neutral")
    output = body(
        torch.from_numpy(labels.pose_rotmat)[None],
        torch.from_numpy(labels.betas)[None],
        torch.from_numpy(labels.transl_cam)[None],
    )
    np.testing.assert_allclose(output.joints[0, :24].numpy(), person.joints.joints_cam, atol=2e-5)
    np.testing.assert_allclose(labels.joints_cam[:24], person.joints.joints_cam, atol=2e-5)
    assert rotvec_to_matrix(torch.zeros(1, 3)).shape == (1, 3, 3)
    with pytest.raises(InputError, match="fit with translation"):
        bodies.labels(Person("x", IMAGE, np.array([0, 0, 9, 9]), np.zeros((24, 2)), np.ones(24, bool), "smpl24"))


def test_frames_subjects_and_cameras_are_filtered(rng, bodies):
    rule = Protocol(
        "test",
        "",
        "smpl24",
        "smpl24",
        ("pelvis",),
        subjects=("S9",),
        cameras=("c1",),
        every=5,
        first_frame=1,
        valid_only=True,
    )
    base = fitted_persons(rng, bodies, 1)[0]
    cases = {
        None: {"subject": "S9", "camera": "c1", "frame": 6},
        "subject S1": {"subject": "S1", "camera": "c1", "frame": 6},
        "camera None": {"subject": "S9", "frame": 6},
        "not every 5th": {"subject": "S9", "camera": "c1", "frame": 5},
        "frame number": {"subject": "S9", "camera": "c1"},
        "marked invalid": {"valid": False},
    }
    for words, facts in cases.items():
        person = Person(
            "a", IMAGE, base.box_xyxy, base.keypoints_px, base.visible, "smpl24", joints=base.joints, **facts
        )
        reason = rule.left_out(person)
        assert reason is None if words is None else words in reason
    inside = PROTOCOLS["3dhp-spin17"]
    for size, words in (((900, 900), None), ((300, 300), "outside"), (None, "unknown")):
        points = np.full((17, 2), 500.0)
        person = Person(
            "a", IMAGE, np.array([0, 0, 9, 9]), points, np.ones(17, bool), "3dhp17", image_width_height=size
        )
        assert inside.left_out(person) is None if words is None else words in inside.left_out(person)


def test_2d_protocols_on_real_photos(shared):
    folder = shared / "data" / "images"

    class Truth:
        spec = EstimatorSpec("truth", skeleton="coco17")

        def __init__(self, off):
            self.off = off

        def predict(self, persons):
            points = np.stack([p.keypoints_px for p in persons]) + self.off
            return PoseBatch(tuple(p.person_id for p in persons), "coco17", np.zeros((len(persons), 17, 3)), points)

    coco = CocoKeypoints(folder / "coco" / "annotations.json", folder / "coco")
    assert evaluate(Truth(0), coco, protocol="coco-pck").summary()["PCK@0.05 [%]"] == 100
    sides = np.array([(p.box_xyxy[2:] - p.box_xyxy[:2]).max() for p in coco])
    result = evaluate(Truth(10), coco, protocol="coco-pck")
    np.testing.assert_array_equal(result.values["PCK@0.1 [%]"], 100.0 * (np.hypot(10, 10) <= 0.1 * sides))
    assert result.joint_unit == "px" and len(result.skipped) == len(coco.skipped)
    videos = CocoKeypoints(folder / "jhmdb" / "annotations.json", folder / "jhmdb")

    class Video(Truth):
        spec = EstimatorSpec("truth", skeleton="jhmdb15")

        def predict(self, persons):
            points = np.stack([p.keypoints_px for p in persons])
            return PoseBatch(tuple(p.person_id for p in persons), "jhmdb15", np.zeros((len(persons), 15, 3)), points)

    assert evaluate(Video(0), videos, protocol="jhmdb-pckh").values["PCKh@0.6 [%]"].tolist() == [100, 100]


def test_files_and_comparison(rng, bodies, tmp_path):
    persons = fitted_persons(rng, bodies)
    bad, good = (evaluate(Answers(bodies, noise), persons) for noise in (0.06, 0.02))
    bad.save(tmp_path / "bad")
    again = load_evaluation(tmp_path / "bad")
    assert again.person_ids == bad.person_ids and again.groups == bad.groups and again.settings == bad.settings
    np.testing.assert_allclose(again.mpjpe_mm, bad.mpjpe_mm)
    np.testing.assert_allclose(again.joint_errors, bad.joint_errors, rtol=1e-6)
    table = pd.read_parquet(tmp_path / "bad" / "persons.parquet")
    assert len(table) == 12 and {"MPJPE [mm]", "joint_errors_mm", "sequence"} <= set(table.columns)
    assert set(bad.by_action()) == {"sit", "walk"}
    row = bad.rows()[0]
    assert row["95 % low"] < row["mean"] < row["95 % high"] and row["sequences"] == 4
    first = compare(again, good)[0]
    assert first["better"] == "second" and first["difference"] == pytest.approx(
        good.mpjpe_mm.mean() - bad.mpjpe_mm.mean()
    )
    assert first["p"] == pytest.approx(2 / 16) and first["95 % high"] < 0, "four sequences cannot say more"
    assert text_table(compare(bad, good)).count("\n") == 3
    assert {row["better"] for row in compare(bad, bad)} == {"equal"}
    with pytest.raises(InputError, match="same persons"):
        compare(bad, evaluate(Answers(bodies), persons[1:]))
    with pytest.raises(InputError, match="one protocol"):
        compare(bad, evaluate(Answers(bodies), persons, protocol="3dpw-smpl24"))
    (tmp_path / "bad" / "persons.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match="damaged"):
        load_evaluation(tmp_path / "bad")


def test_what_a_protocol_misses_is_named(rng, bodies, regressor, tmp_path):
    persons = fitted_persons(rng, bodies, 2)
    with pytest.raises(InputError, match="at least one"):
        evaluate(Answers(bodies), [])
    with pytest.raises(InputError, match="'h36m' joint regressor"):
        evaluate(Answers(bodies), persons, protocol="3dpw-spin14", bodies=bodies)
    with pytest.raises(InputError, match="data set's bodies"):
        evaluate(Answers(bodies), persons, protocol="3dpw-spin14", regressor=regressor())
    with pytest.raises(InputError, match="Did you mean '3dpw-spin14'"):
        PROTOCOLS["3dpw-spin1"]
    plain = [Person("a", IMAGE, np.array([0, 0, 9, 9]), np.zeros((24, 2)), np.ones(24, bool), "smpl24")]
    with pytest.raises(InputError, match="needs 3D labels"):
        evaluate(Answers(bodies), plain)
    estimator = Answers(bodies)
    estimator.spec = EstimatorSpec("coco", skeleton="coco17")
    with pytest.raises(InputError, match="lacks joints"):
        evaluate(estimator, persons)
    np.save(tmp_path / "short.npy", np.ones((17, 6890)))
    with pytest.raises(InputError, match="another mesh"):
        load_regressor(tmp_path / "short.npy", bodies.body("neutral").v_template.numpy())
    np.save(tmp_path / "rows.npy", np.ones((24, 1200)))
    with pytest.raises(InputError, match="wrong shape"):
        load_regressor(tmp_path / "rows.npy", np.zeros((1200, 3)))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with pytest.raises(FileError):
        load_regressor(tmp_path / "objects.npy", np.zeros((1200, 3)))


def test_all_named_protocols_are_consistent():
    for protocol in map(PROTOCOLS.__getitem__, PROTOCOLS):
        rows = skeletons.mapping(protocol.space, protocol.joints)
        assert (rows >= 0).all(), protocol.name
        written = protocol.written_out()
        assert len(written["joint_names"]) == len(rows) and None not in written["joint_names"]
        assert set(protocol.metrics) <= set(METRICS_2D if protocol.two_d else METRICS_3D)
    with pytest.raises(InputError):
        Protocol("x", "", "smpl24", "smpl24", ("pelvis",), ("PVE [mm]",))
    with pytest.raises(InputError):
        Protocol("x", "", "smpl24", "smpl24", ("no joint",))


def test_pckh_of_an_estimator_without_head_joints():
    """The head is measured on the annotation, the limbs alone are compared."""
    rng = np.random.default_rng(0)
    limbs = skeletons.mapping("lsp14", "limbs12")

    class Limbs:
        spec = EstimatorSpec("limbs", skeleton="limbs12")

        def predict(self, persons):
            points = np.stack([person.keypoints_px[limbs] for person in persons])
            points[:, 0] += (0, 0.59 * 20)
            points[:, 1] += (0, 0.61 * 20)
            return PoseBatch(tuple(p.person_id for p in persons), "limbs12", np.zeros((len(points), 12, 3)), points)

    persons = []
    for number in range(2):
        points = rng.uniform(20, 60, (14, 2)).astype(np.float32)
        points[13] = points[12] + (0, -20)
        person = Person(f"p{number}", ArrayImage(np.zeros((80, 80, 3), np.uint8)), np.array([5, 5, 75, 75]), points,
                        np.ones(14, bool) if number == 0 else np.arange(14) != 13, "lsp14")  # fmt: skip
        persons.append(person)
    result = evaluate(Limbs(), persons, protocol="lspet-pckh12")
    assert result.values["PCKh@0.6 [%]"].tolist() == [pytest.approx(100 * 11 / 12)]
    assert result.skipped == (("p1", "its head size is unknown"),)
    with pytest.raises(InputError, match="lacks joints"):
        evaluate(Limbs(), persons, protocol="lspet-pckh")
