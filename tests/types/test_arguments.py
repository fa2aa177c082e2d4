"""One value where several are meant, swapped arguments, lists of something else: the message says how to go on."""

from __future__ import annotations

import pytest

from posesyn.data import load_motion, save_motion
from posesyn.errors import InputError
from posesyn.synthesis import AnimationRenderer, ClipFilter, ErrorExtractor, MotionSynthesizer
from posesyn.types import Motion, Person
from posesyn.types.arguments import check_several
from tests.factories import make_clip, make_estimator, make_motion, make_person, make_report, make_scored


def test_one_instead_of_several():
    with pytest.raises(InputError, match=r"predict takes several values: expected a list of Person, got one Person"):
        check_several(make_person(), Person, "estimator.predict")
    with pytest.raises(InputError, match=r"Write estimator.predict\(\[\.\.\.\]\)"):
        check_several(make_person(), Person, "estimator.predict")
    for bad in (3, None, "walk", make_report()):
        with pytest.raises(InputError, match="expected a list of Person or Motion"):
            check_several(bad, (Person, Motion), "x")
    with pytest.raises(InputError, match="got Motion"):
        check_several([make_person(), make_motion()], Person, "x")


def test_what_is_right_passes_and_is_not_gone_through():
    def never():
        raise AssertionError("a generator was started")
        yield

    check_several([], Person, "x")
    check_several((make_person(),), Person, "x")
    check_several(never(), Person, "x")


def test_the_stages_say_it(tiny_prior, body):
    person, motion, clip = make_person(), make_motion(), make_clip()
    estimator, renderer = make_estimator(), AnimationRenderer(image_size=32)
    synthesizer = MotionSynthesizer(tiny_prior, body=body)
    calls = {
        "predict takes several": lambda: estimator.predict(person),
        "extract takes several": lambda: ErrorExtractor(estimator).extract(person),
        "synthesize takes several": lambda: synthesizer.synthesize(make_scored()),
        "Pass report.challenging": lambda: synthesizer.synthesize(make_report()),
        "expected a list of ScoredPerson, got Person": lambda: synthesizer.synthesize([person]),
        "render takes several": lambda: renderer.render(motion),
        "expected a list of Motion, got Clip": lambda: renderer.render([clip]),
        "expected a list of ScoredPerson or Person or Appearance, got one": lambda: renderer.render([motion], person),
        "filter takes several": lambda: ClipFilter().filter(clip),
        "calibrate takes several": lambda: ClipFilter(estimator).calibrate(clip),
    }
    for words, call in calls.items():
        with pytest.raises(InputError) as caught:
            call()
        assert words in str(caught.value), words


def test_motion_files_say_it(tmp_path):
    motion = make_motion()
    with pytest.raises(InputError, match=r"save_motion\(path, motion\)"):
        save_motion(motion, tmp_path / "m.npz")
    with pytest.raises(InputError, match=r"save_motion\(path, motion\)"):
        save_motion(tmp_path / "m.npz", [motion])
    with pytest.raises(InputError, match="got Motion"):
        load_motion(motion)
