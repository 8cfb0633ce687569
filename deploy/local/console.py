"""What the demo writes on the terminal: headings, checked lines, a progress bar.

Colours and redrawing only on a terminal, colours not with NO_COLOR.
"""

import os
import sys
import time
from contextlib import contextmanager
from typing import Iterator, Optional, TextIO

_WIDTH = 46  # of the text of a checked line; the time follows


def duration(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds:.1f} s"


class Console:
    def __init__(self, out: TextIO = sys.stdout):
        self._out = out
        self.is_tty = out.isatty()
        self._colour = self.is_tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.failures = 0
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors="replace")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def heading(self, text: str) -> None:
        self.line(f"\n{self._paint('1', text)}")

    def note(self, text: str) -> None:
        """Something to know, which was not checked."""
        self.line(f"    {text}")

    def _checked(self, sign: str, text: str, took: Optional[float], detail: str) -> None:
        time_text = duration(took) if took is not None else ""
        line = f"  {sign} {text:<{_WIDTH}} {time_text:>9}  {self._paint('2', detail) if detail else ''}"
        self.line(line.rstrip())

    def ok(self, text: str, took: Optional[float] = None, detail: str = "") -> None:
        """Something that was checked and is right; `took` in seconds."""
        self._checked(self._paint("32", "✓"), text, took, detail)

    def bad(self, text: str, reason: str) -> None:
        """Something that was checked and is wrong: counted in `failures`."""
        self.failures += 1
        self._checked(self._paint("31", "✗"), text, None, "")
        for line in reason.splitlines():
            self.line("      " + self._paint("31", line))

    def bar(self, text: str, total: int) -> "Bar":
        return Bar(self, text, total)

    @contextmanager
    def timed(self, text: str) -> Iterator[list]:
        """Says what takes a while, and how long it took; what is put into the list it gives is the detail."""
        start = time.monotonic()
        if self.is_tty:
            self._out.write(f"  … {text}")
            self._out.flush()
        detail: list = []
        try:
            yield detail
        finally:
            if self.is_tty:
                self.clear()
        self.ok(text, time.monotonic() - start, " ".join(detail))

    def clear(self) -> None:
        self._out.write("\r\033[K")
        self._out.flush()

    def redraw(self, text: str) -> None:
        self._out.write("\r" + text + "\033[K")
        self._out.flush()


class Bar:
    """A progress bar: redrawn on a terminal, a line for every 10 % elsewhere."""

    def __init__(self, console: Console, text: str, total: int):
        self._console = console
        self._text = text
        self._total = max(total, 1)
        self._shown = -1

    def update(self, done: int) -> None:
        percent = 100 * done // self._total
        if self._console.is_tty:
            if percent != self._shown:
                filled = percent * 30 // 100
                self._console.redraw(f"  … {self._text} [{'█' * filled}{'·' * (30 - filled)}] {percent:3} %  {done:,}")
        elif percent // 10 != self._shown // 10:
            self._console.line(f"    {self._text}: {percent} %, {done:,} of {self._total:,}")
        self._shown = percent

    def finish(self) -> None:
        """Takes the bar off the terminal."""
        if self._console.is_tty:
            self._console.clear()
