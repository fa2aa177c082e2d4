"""How far a stage or a training is: a bar on a terminal or in a notebook, else plain lines that a log file can keep."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

# Seconds between two plain lines; our own choice.
LINE_EVERY = 10.0
Item = TypeVar("Item")


class ProgressBar:
    """Counts what is done. Use it as a context manager.

    Bars of several threads or processes on one terminal need different rows, and processes the same tqdm lock
    (``tqdm.set_lock``). Plain lines start with the name, so that those of two trainings can be told apart.

    Args:
        total: What there is to do; None if that is not known.
        name: Shown in front.
        unit: What is counted, in the singular.
        initial: Done already, by an interrupted run.
        shown: False shows nothing.
        row: Line of the terminal.
    """

    def __init__(
        self, total: int | None, name: str, unit: str = "item", *, initial: int = 0, shown: bool = True, row: int = 0
    ) -> None:
        self.total, self.name, self.unit, self.done, self.text = total, name, unit, initial, ""
        bar = shown and can_redraw()
        self._bar = tqdm(total=total, desc=name, unit=unit, initial=initial, position=row, disable=not bar)
        self._plain = shown and not bar
        self._start = self._last = time.monotonic()
        self._initial = initial

    def update(self, count: int = 1, text: str | None = None) -> None:
        """``count`` more are done; ``text`` (a loss, a name) stands at the end of the bar until it changes."""
        self.done += count
        if text is not None and text != self.text:
            self.text = text
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(count)
        if self._plain and time.monotonic() - self._last >= LINE_EVERY:
            self._line()

    def close(self) -> None:
        """The last line, or the bar as it stands."""
        self._bar.close()
        if self._plain:
            self._line()
            self._plain = False

    def _line(self) -> None:
        self._last = time.monotonic()
        passed, made = self._last - self._start, self.done - self._initial
        parts = [f"{self.name}: {self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"]
        parts.append(f"{_clock(passed)} passed")
        if self.total is not None and made and self.done < self.total:
            parts.append(f"{_clock(passed / made * (self.total - self.done))} left")
        sys.stderr.write(", ".join([*parts, self.text] if self.text else parts) + "\n")
        sys.stderr.flush()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def progress_over(
    items: Iterable[Item], name: str, unit: str = "item", *, total: int | None = None, initial: int = 0,
    shown: bool = True,
) -> Iterator[Item]:  # fmt: skip
    """The items one by one, each counted when the next one is asked for; ``total`` defaults to their number."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with ProgressBar(total, name, unit, initial=initial, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()


def can_redraw() -> bool:
    """Whether what was written can be written over: on a terminal and in a notebook, not in a file or a pipe."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
