"""Recordings for the viewer rerun."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from posesyn.errors import FileError, InputError, MissingDependencyError
from posesyn.report import save_rerun
from tests.factories import make_motion


def test_recordings_hold_joints_and_surface(tmp_path):
    pytest.importorskip("rerun")
    from posesyn.body import load_body

    motion, body = make_motion(frames=3), load_body("anny", size="small")
    save_rerun(tmp_path / "a.rrd", [motion, motion], body)
    data = (tmp_path / "a.rrd").read_bytes()
    assert data[:4] in (b"RRF2", b"RRF0", b"RRIO") and len(data) > 3 * 12 * body.num_vertices
    save_rerun(tmp_path / "b.rrd", motion, surface=False)
    assert (tmp_path / "b.rrd").stat().st_size < len(data)


def test_what_is_logged(tmp_path, monkeypatch):
    """The numbers on their way to rerun."""
    rerun = pytest.importorskip("rerun")
    logged = []
    log = rerun.RecordingStream.log
    monkeypatch.setattr(
        rerun.RecordingStream,
        "log",
        lambda self, entity, *a, **k: logged.append((entity, a)) or log(self, entity, *a, **k),
    )
    motion = make_motion(frames=4)
    save_rerun(tmp_path / "a.rrd", motion)
    entities = [entity for entity, _ in logged]
    assert entities.count("world/000/joints") == entities.count("world/000/body") == 4
    points = [values[0] for entity, values in logged if entity == "world/000/joints"]
    joints = np.array(points[2].positions.as_arrow_array().to_pylist())
    if motion.joints_world is not None:
        np.testing.assert_allclose(joints, motion.joints_world[2], atol=1e-6)
    mesh = next(values[0] for entity, values in logged if entity == "world/000/body")
    normals = np.array(mesh.vertex_normals.as_arrow_array().to_pylist())
    vertices = np.array(mesh.vertex_positions.as_arrow_array().to_pylist())
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    assert ((vertices - vertices.mean(0)) * normals).sum(1).mean() > 0  # they point outwards


def test_bad_input(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no motion"):
        save_rerun(tmp_path / "a.rrd", [])
    with pytest.raises(FileError, match="folder"):
        save_rerun(tmp_path / "no" / "a.rrd", make_motion(frames=1))
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match="ip install rerun-sdk"):
        save_rerun(tmp_path / "a.rrd", make_motion(frames=1))
