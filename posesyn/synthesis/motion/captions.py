"""What a person does, in words: the user's, a vision-language model's, the data set's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from posesyn.errors import FileError, InputError, MissingDependencyError
from posesyn.interfaces import Captioner
from posesyn.synthesis.motion.prior.text import checked_texts
from posesyn.types import Person, batched

_PELVIS, _NECK, _HEAD = 0, 12, 15
_SIDES = {"left": (1, 4, 7, 16, 18, 20), "right": (2, 5, 8, 17, 19, 21)}  # hip, knee, ankle, shoulder, elbow, wrist


def describe_pose(joints: np.ndarray) -> str:
    """A caption such as ``"a person crouches with the left arm raised"`` for (22, 3) joints, y up, any unit.

    Raises:
        InputError: Wrong shape, or NaN.
    """
    joints = np.asarray(joints, np.float64)
    if joints.shape != (22, 3) or not np.isfinite(joints).all():
        raise InputError("a pose must be finite (22, 3)", where="describe_pose", got=joints.shape)
    trunk = joints[_NECK] - joints[_PELVIS]
    length = max(float(np.linalg.norm(trunk)), 1e-9)
    upright = trunk[1] / length
    legs = {side: joints[list(rows[:3])] for side, rows in _SIDES.items()}
    thighs = {side: (hip - knee)[1] / _norm(hip - knee) for side, (hip, knee, _) in legs.items()}
    reach = {side: (hip - ankle)[1] / length for side, (hip, _, ankle) in legs.items()}
    shins = {side: (knee - ankle)[1] / _norm(knee - ankle) for side, (_, knee, ankle) in legs.items()}
    ahead = {side: float(np.linalg.norm((ankle - hip)[[0, 2]])) / length for side, (hip, _, ankle) in legs.items()}
    raised_leg = max(reach, key=lambda side: -reach[side])
    other_leg = "right" if raised_leg == "left" else "left"

    if upright < -0.3:
        action = "does a cartwheel upside down"
    elif abs(upright) < 0.35 and max(reach.values()) < 0.6:
        action = "lies on the floor"
    elif upright < 0.6 and max(reach.values()) > 0.9:
        action = "bends over"
    elif reach[raised_leg] < 0.7 * reach[other_leg] and reach[other_leg] > 1.0:
        high = reach[raised_leg] < 0.3
        action = f"{'kicks high with' if high else 'stands on one leg and lifts'} the {raised_leg} leg"
    elif upright > 0.6 and max(thighs.values()) < 0.6 and min(shins.values()) > 0.7 and min(ahead.values()) > 0.35:
        action = "sits on a stool"  # who crouches has the feet below the hips
    elif max(reach.values()) < 0.75 and max(thighs.values()) < 0.6:
        action = "crouches down"
    elif max(reach.values()) < 1.2 and max(thighs.values()) < 0.75:
        action = "bends the knees"
    elif float(np.linalg.norm((joints[7] - joints[8])[[0, 2]])) > 0.75 * length:
        action = "takes a wide step"
    else:
        action = "stands"
    arms = _arms(joints, length)
    return f"a person {action}{' ' + arms if arms else ''}"


def choose_captions(
    given: str | None, said: str | None, annotated: tuple[str, ...], joints: np.ndarray, where: str
) -> tuple[list[str], str]:
    """The captions to sample with, by priority, and whose they are.

    The user's (``"user"``), else the captioner's (``"model"``), else the annotation's (``"person"``), else the pose
    described (``"pose"``). Empty captions of the annotation are passed over.

    Raises:
        InputError: The user's caption is empty.
    """
    if given is not None:
        return checked_texts([given], where), "user"
    if said is not None:
        return checked_texts([said], where), "model"
    usable = [caption for caption in annotated if isinstance(caption, str) and any(c.isalnum() for c in caption)]
    return (usable, "person") if usable else ([describe_pose(joints)], "pose")


def _norm(vector: np.ndarray) -> float:
    return max(float(np.linalg.norm(vector)), 1e-9)


def _arms(joints: np.ndarray, length: float) -> str:
    raised, level = [], []
    for side, (_, _, _, shoulder, _, wrist) in _SIDES.items():
        height = (joints[wrist] - joints[shoulder])[1] / length
        aside = np.linalg.norm((joints[wrist] - joints[shoulder])[[0, 2]]) / length
        if height > 0.4:
            raised.append(side)
        elif height > -0.35 and aside > 0.6:
            level.append(side)
    if len(raised) == 2:
        return "with both arms raised"
    if len(level) == 2:
        return "with outstretched arms"
    if raised:
        return f"with the {raised[0]} arm raised"
    return f"and reaches out with the {level[0]} arm" if level else ""


# The paper names no prompt (PoseSyn: a vision-language model captions the image); this one is our own.
PROMPT = (
    "What is this person doing with their body? Answer with one short sentence about the body action only, "
    "for example: a person kneels on the ground and reaches forward."
)


class VisionCaptioner:
    """Describes each person by a vision-language model that sees the person's box; fits ``interfaces.Captioner``.

    Args:
        path: Local folder of a model for the pipeline ``image-text-to-text`` (LLaVA, SmolVLM, Qwen-VL ...). Nothing is
            downloaded.
        prompt: What the model is asked.
        max_new_tokens: Length of an answer at most.
        batch_size: Persons at once.
        margin: Factor by which the box grows before it is cut out.
        device: As in ``torch.device``.
        keep_annotated: Persons whom the data set describes are not looked at; of them ``""`` is said.

    Raises:
        MissingDependencyError: transformers is not installed.
        FileError: The folder does not exist, or holds no such model.
    """

    def __init__(
        self,
        path: str | Path,
        prompt: str = PROMPT,
        *,
        max_new_tokens: int = 40,
        batch_size: int = 8,
        margin: float = 1.2,
        device: str = "cpu",
        keep_annotated: bool = False,
    ) -> None:
        if not Path(path).is_dir():
            fix = "download a model for the pipeline 'image-text-to-text' and give the path of its folder"
            raise FileError("there is no vision-language model folder", where=path, fix=fix)
        if max_new_tokens < 1 or batch_size < 1 or not margin > 0:
            what, got = "max_new_tokens, batch_size and margin must be positive", (max_new_tokens, batch_size, margin)
            raise InputError(what, where="VisionCaptioner", got=got)
        if not prompt.strip():
            raise InputError("the prompt is empty", where="VisionCaptioner", fix="ask for the person's action")
        try:
            from transformers import pipeline
        except ImportError as error:
            what = "captions by a model need transformers"
            raise MissingDependencyError(what, fix="pip install transformers") from error
        try:
            self._pipeline = pipeline("image-text-to-text", model=str(path), device=device, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise FileError(
                "the folder holds no model that turns image and text into text",
                where=path,
                expected="config.json, safetensors weights, tokenizer and processor of one",
                got=str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
            ) from error
        self.prompt, self.batch_size, self.margin = prompt, batch_size, margin
        self.keep_annotated = keep_annotated
        self._options = {"max_new_tokens": max_new_tokens, "do_sample": False}

    def caption(self, persons: Sequence[Person]) -> list[str]:
        """One sentence per person, ``""`` where the model says nothing.

        Raises:
            InputError: A person whose box lies outside the image. FileError: An image that cannot be read.
        """
        captions = [""] * len(persons)
        asked = [row for row, person in enumerate(persons) if not (self.keep_annotated and person.captions)]
        for part in batched(asked, self.batch_size):
            chats = [self._chat(persons[row]) for row in part]
            answers = self._pipeline(text=chats, batch_size=len(chats), generate_kwargs=self._options,
                                     return_full_text=False)  # fmt: skip
            for row, answer in zip(part, answers):
                captions[row] = first_sentence(_text_of(answer))
        return captions

    def _chat(self, person: Person) -> list[dict[str, Any]]:
        image = {"type": "image", "image": cut_out(person, self.margin)}
        return [{"role": "user", "content": [image, {"type": "text", "text": self.prompt}]}]


def caption_persons(persons: Sequence[Person], captioner: Captioner) -> dict[str, str]:
    """Captions by ``person_id``; persons of whom the captioner says nothing are absent.

    Raises:
        InputError: The captioner returns another number of captions.
    """
    said = captioner.caption(persons) if persons else []
    if len(said) != len(persons):
        what, where = "a captioner must describe each person", type(captioner).__name__
        raise InputError(what, where=where, expected=len(persons), got=len(said))
    return {person.person_id: text for person, text in zip(persons, said) if any(c.isalnum() for c in text)}


def cut_out(person: Person, margin: float = 1.2) -> Image.Image:
    """The person's box, grown by ``margin``, as far as it lies inside the image; RGB.

    Raises:
        InputError: Nothing of it does.
    """
    pixels = person.image.load()
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in person.body_box_xyxy)
    grow = 0.5 * (margin - 1.0)
    wide, high = grow * (x1 - x0), grow * (y1 - y0)
    left, top = max(0, int(np.floor(x0 - wide))), max(0, int(np.floor(y0 - high)))
    right, bottom = min(width, int(np.ceil(x1 + wide))), min(height, int(np.ceil(y1 + high)))
    if right - left < 1 or bottom - top < 1:
        raise InputError(
            "the person's box lies outside the image",
            where=f"person '{person.person_id}'",
            expected=f"inside {width} x {height}",
            got=np.round(person.body_box_xyxy, 1).tolist(),
        )
    return Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))


def first_sentence(text: str) -> str:
    """The first sentence of an answer on one line, without the model's turn markers and quotes."""
    text = re.sub(r"<[^<>\s]{1,40}>", " ", text)
    text = re.sub(r"^\s*(assistant|answer)\s*:\s*", "", " ".join(text.split()), flags=re.IGNORECASE)
    # Western stops end a sentence before a space, those of Chinese and Japanese anywhere.
    sentence = re.split(r"(?<=[.!?])[\"']?(?:\s|$)|(?<=[。！？])", text.strip(" \"'"), maxsplit=1)[0]
    return sentence.strip(" \"'.!。！")


def _text_of(answer: Any) -> str:
    """The generated text of one answer of the pipeline, in all of its shapes."""
    while isinstance(answer, list):
        answer = answer[-1] if answer else ""
    if isinstance(answer, Mapping):
        return _text_of(answer.get("generated_text", answer.get("content", "")))
    return str(answer)
