"""The ``posesyn`` command: the demo, whole runs, and each stage alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

# Both must be set before torch is imported: spinning OpenMP threads starve each other on small machines.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 2 wrong input, 130 interrupted (run again to resume)."""
    from jsonargparse import auto_cli

    from posesyn.cli import stages as commands
    from posesyn.errors import PosesynError

    given = list(sys.argv[1:] if arguments is None else arguments)
    # `train lifter` beside `train`: jsonargparse has no command that both acts and has commands below it.
    if (joined := "_".join(given[:2])) in ("train_lifter", "train_poseaug", "evaluate_lifter"):
        given[:2] = [joined]
    signal.signal(signal.SIGTERM, _interrupt)
    if given and given[0] in ("demo", "run", "train", "train_lifter", "train_poseaug") and "--help" not in given:
        from posesyn.training.runs import quiet_lightning

        quiet_lightning()
    try:
        auto_cli(
            commands.COMMANDS,
            args=given,
            prog="posesyn",
            description="Finds the images on which a 3D human pose estimator fails, synthesizes training data for "
            "exactly those poses, retrains the estimator and proves the gain.",
            as_positional=False,
        )
    except PosesynError as error:
        print(f"posesyn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("posesyn: interrupted. Run the same command again to resume.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _interrupt(signum: int, frame: object) -> None:
    # Cluster schedulers send SIGTERM before they kill: leave as Ctrl-C does, so that finished samples stay.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
