"""How a command ends other than by its own end: bad input, signals, a full disk, a reader that has gone away.

A signal raises `Interrupted` where the program is. What raises in a callback is sometimes swallowed by what called it, and a
compiled program does not look at signals before its end: the signal is therefore remembered, asked for again after every
chunk (`check`), and after some seconds ends the process from another thread. Nothing is lost by that: what is complete in a
store is on disk already.
"""

import contextlib
import os
import signal
import sys
import threading

from .._text import on_one_line

NAMES = {signal.SIGINT: "Interrupted"}
for _name in ("SIGTERM", "SIGHUP"):
    # Windows has no SIGHUP.
    if hasattr(signal, _name):
        NAMES[getattr(signal, _name)] = f"Ended by {_name}"
GRACE = 5.0


class Interrupted(BaseException):
    """A signal that ends the command. Not a `KeyboardInterrupt`, which typer would answer itself."""


class Closed(Exception):
    """Whoever read standard output has closed it."""


class _State:
    """What `interrupted` and the handlers share: the signal that came, and what is said about it."""

    number: signal.Signals | None = None
    kept: str | None = None


def check() -> None:
    """Ends the command if a signal has come."""
    if _State.number is not None:
        raise Interrupted


@contextlib.contextmanager
def keeping(sentence: str):
    """Inside it, a signal is answered by this sentence about what is kept."""
    before, _State.kept = _State.kept, sentence
    yield
    # Not after an exception: what was said inside holds while a signal is on its way out.
    _State.kept = before


def interruptible():
    """Inside it, chunks are stored."""
    return keeping("complete chunks are kept, and the same command goes on from there.")


def _sentence(number: signal.Signals) -> str:
    return f"{NAMES[number]}: {_State.kept or 'nothing more is computed or written.'}"


def _say(text: str) -> None:
    # Standard error may be closed as well.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))


def _answer(number, frame) -> None:
    first = _State.number is None
    _State.number = signal.Signals(number) if first else _State.number
    if first:
        raise Interrupted


@contextlib.contextmanager
def _listening():
    """Signals raise `Interrupted`, and end the process where that is not heard; those that are ignored stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.number = _State.kept = None
    over = threading.Event()
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)

    def watch() -> None:
        # The interpreter writes the number here at once, also while the main thread is in a compiled program.
        while (heard := os.read(ours, 1)) and not over.is_set():
            if heard[0] in handled and not over.wait(GRACE):
                number = _State.number = _State.number or signal.Signals(heard[0])
                _say(_sentence(number))
                os._exit(128 + number)

    handled = {}
    for number in NAMES:
        if signal.getsignal(number) != signal.SIG_IGN:
            handled[number] = signal.signal(number, _answer)
    wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handled.items():
            signal.signal(number, handler)
        os.close(theirs)
        watcher.join()
        os.close(ours)


def run(command) -> int | str:
    """Runs `command`, and answers in one sentence what it could not.

    **Returns:** the exit code: that of the command; 2 for bad input; 1 where the machine failed; 128 and the number of the signal
    that ended it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            # A name whose bytes are no text, or a terminal without these letters, costs the letters and not the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _listening():
            try:
                code = 0
                command()
            except SystemExit as ended:
                code = ended.code or 0
            sys.stdout.flush()
            check()
            return code
    except (Interrupted, KeyboardInterrupt):
        number = _State.number = _State.number or signal.SIGINT
        _say(_sentence(number))
        return 128 + number
    except (Closed, BrokenPipeError):
        # What is still unwritten would raise again at the end of the interpreter.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _refuse("Standard output was closed before all was printed; files that were written are complete.", 141)
    except OSError as error:
        return _refuse(described(error), 2)
    except MemoryError as error:
        return _refuse(f"The memory of this machine does not suffice ({error}): choose smaller sizes.", 1)
    except ValueError as error:
        return _refuse(str(error), 2)
    except _failures_of_jax() as error:
        return _refuse(f"JAX could not run this: {str(error).splitlines()[0]}", 1)


def _failures_of_jax() -> type[Exception]:
    """Asked for when something else went wrong: a command that uses no JAX does not import it."""
    import jax

    return jax.errors.JaxRuntimeError


def _refuse(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"lindyn-jax: {on_one_line(text)}", file=sys.stderr, flush=True)
    return code


def described(error: OSError) -> str:
    """One sentence about an error of the operating system, with the file that it is about."""
    if error.strerror is None:
        return str(error) or f"{type(error).__name__}."
    return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
