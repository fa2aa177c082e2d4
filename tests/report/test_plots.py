import warnings

import matplotlib
import numpy as np
import pytest

from posesyn.errors import FileError, InputError
from posesyn.report import learning_curves, plots
from posesyn.report.embedding import encode_figure
from posesyn.types import ErrorReport
from tests.factories import make_report, make_scored


def test_histogram_shares_add_up_and_medians_are_told(rng):
    values = rng.gamma(4, 20, 500)
    figure = plots.error_histogram({"before": values, "ours": values * 0.8, "nothing": []})
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"before: median {np.median(values):.1f} mm", f"ours: median {np.median(values) * 0.8:.1f} mm"]
    stairs = [patch for patch in axes.patches if not patch.get_fill()]
    assert len(stairs) == 2
    for patch in stairs:
        assert patch.get_data().values.sum() == pytest.approx(100)


@pytest.mark.parametrize("series", [{}, {"none": np.zeros(0)}, {"one": np.array([3.0])}, {"zeros": np.zeros(5)}])
def test_histogram_of_little(series):
    assert encode_figure(plots.error_histogram(series)).startswith(b"<?xml")


def test_names_are_printed_as_they_are(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.error_histogram({r"$\frac{": rng.random(9), "_hidden": rng.random(9), "<b>": rng.random(9)}, "$")
        encode_figure(figure)
        encode_figure(plots.joint_error_bars({"$x": {"$\\y": 1.0}}))
    assert len(figure.axes[0].get_legend().get_texts()) == 3


def test_not_finite_is_refused():
    with pytest.raises(InputError, match="series 'ours'"):
        plots.error_histogram({"ours": np.array([1.0, np.nan])})


def test_mean_joint_errors_skips_unused_joints():
    first, second = make_scored(0), make_scored(1)
    second.joint_used[:] = False
    second.joint_used[0] = True
    means = plots.mean_joint_errors([first, second])
    assert means["nose"] == pytest.approx((first.joint_errors[0] + second.joint_errors[0]) / 2)
    assert means["left_wrist"] == pytest.approx(first.joint_errors[9])
    assert plots.mean_joint_errors([]) == {}


def test_bars_have_the_right_lengths_and_order():
    figure = plots.joint_error_bars({"all": {"left_wrist": 2.0, "nose": 1.0, "left_knee": 3.0}})
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 2.0, 3.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nose", "left wrist", "left knee"]
    encode_figure(plots.joint_error_bars({}))


def test_error_by_rank():
    report = make_report(10, 3, 2)
    axes = plots.error_by_rank(report).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), [one.error for one in report.scored])
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert spans == [(-0.5, 2.5), (7.5, 9.5)]
    encode_figure(plots.error_by_rank(ErrorReport((), (), ()), dark=True))


def test_no_global_state_is_touched(rng):
    before = dict(matplotlib.rcParams)
    encode_figure(plots.error_by_rank(make_report()))
    encode_figure(plots.error_histogram({"a": rng.random(5)}, dark=True))
    assert dict(matplotlib.rcParams) == before
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


CURVES = "epoch,gan/usable,gan/views,gan/beyond,val/mpjpe\n0,,,,101\n1,0.9,0.4,nan,99.5\n2,0.95,0.5,,90\n"


def test_curves_of_several_runs(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "curves.csv").write_text("epoch,val/mpjpe\n0,120\n1,110\n")
    (tmp_path / "b.csv").write_text(CURVES)
    figure = learning_curves({"alone": tmp_path / "a", "PoseAug": tmp_path / "b.csv"})
    error, health = figure.axes
    assert [line.get_label() for line in error.lines] == ["alone", "PoseAug"]
    np.testing.assert_array_equal(error.lines[1].get_ydata(), (101, 99.5, 90))
    # Not a number is left out, and with it a line that has nothing else.
    assert [line.get_label() for line in health.lines] == ["inside the picture", "spread of views"]
    assert len(learning_curves(tmp_path / "a").axes) == 1


def test_curves_of_a_training_without_validation(tmp_path):
    (tmp_path / "curves.csv").write_text("epoch,gan/usable\n0,0.9\n1,0.8\n")
    error, health = learning_curves(tmp_path).axes
    assert not error.lines and len(health.lines) == 1


def test_files_that_hold_no_curves_are_refused(tmp_path):
    with pytest.raises(FileError, match="no learning curves"):
        learning_curves(tmp_path / "nothing")
    (tmp_path / "curves.csv").write_text("epoch,val/mpjpe\n")
    with pytest.raises(FileError, match="no epoch"):
        learning_curves(tmp_path)
    (tmp_path / "curves.csv").write_text("epoch,val/mpjpe\n0,much\n")
    with pytest.raises(FileError, match="cannot be read"):
        learning_curves(tmp_path)
    with pytest.raises(InputError, match="at least one run"):
        learning_curves({})
