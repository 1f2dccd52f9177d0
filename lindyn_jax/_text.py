"""Texts that users give, as they are printed."""


def on_one_line(text: str) -> str:
    """`text` with line breaks and terminal codes escaped: names of files, arrays and columns may hold them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
