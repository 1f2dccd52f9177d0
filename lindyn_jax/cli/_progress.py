"""How far a command is, on standard error: trials that are done, or time that passes."""

import contextlib
import time

from . import _endings


class Progress:
    """First that programs are compiled, then a live bar with rate and remaining time.

    Where there is no terminal, one line a tenth of the way, but not every second.
    """

    def __init__(self, console):
        self.console = console
        self.last = -1

    def __enter__(self):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("compiling", total=None, rate="")
        self.bar.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        _endings.check()
        now = time.monotonic()
        if self.last < 0:
            self.begin, self.before, self.last, self.told = now, done, 0, now
            if done:
                self.console.print(f"resuming: {done} of {total} trials are there already")
            if done < total and not self.console.is_terminal:
                self.console.print("compiling")
        rate = (done - self.before) / (now - self.begin) if done > self.before else 0.0
        # Until the first chunk is there, nothing is known of how long trials take.
        word = "trials" if rate or done == total else "compiling"
        self.bar.update(self.task, description=word, completed=done, total=total, rate=f"{rate:.1f}/s" if rate else "")
        tenth = 10 * done // total
        if not self.console.is_terminal and tenth > self.last and (now > self.told + 2 or done == total):
            self.last, self.told = tenth, now
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            self.console.print(f"{done} of {total} trials, {rate:.1f}/s{left}")

    def __exit__(self, *exception) -> None:
        self.bar.stop()


class Working:
    """For one program, of which nothing is known before it ends: the time that passes, then how long it took.

    Where there is no terminal, a line at the beginning and one at the end.
    """

    def __init__(self, console):
        self.console = console
        self.open = contextlib.ExitStack()

    def __enter__(self) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.begin = time.monotonic()
        if not self.console.is_terminal:
            self.console.print("compiling and computing")
            return
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        bar = self.open.enter_context(Progress(*columns, console=self.console, transient=True))
        bar.add_task("compiling and computing", total=None)

    def __exit__(self, kind, *exception) -> None:
        self.open.close()
        if kind is None:
            self.console.print(f"computed in {time.monotonic() - self.begin:.1f} s, compilation included")
