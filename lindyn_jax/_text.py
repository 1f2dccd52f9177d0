"""Texts as they are printed."""

from collections.abc import Mapping


def on_one_line(text: str) -> str:
    """`text` with line breaks and terminal codes escaped: names of files, arrays and columns may hold them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def counted(numbers: Mapping[str, int]) -> str:
    """Numbers of things by the name of one: `2 widths x 1 trial`."""
    return " x ".join(f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in numbers.items())


class ArgumentError(ValueError):
    """What is wrong with one argument, whose name the command line replaces by that of its option.

    **Fields:** `argument`, its name; `words`, what goes on after it.
    """

    def __init__(self, argument: str, words: str):
        super().__init__(argument, words)
        self.argument, self.words = argument, words

    def __str__(self) -> str:
        return f"Argument `{self.argument}` {self.words}"
