"""A terminal, as far as the console makes use of one."""

import io
import re


def shown(written):
    """Return the lines that a terminal shows after `written`; only the codes in use are known."""
    rows, row, column = [""], 0, 0
    for code, text in re.findall(r"\x1b\[([\d;]*[A-Za-z])|([^\x1b])", written, re.DOTALL):
        if text == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif text == "\r":
            column = 0
        elif text:
            rows[row] = rows[row][:column].ljust(column) + text + rows[row][column + 1 :]
            column += 1
        elif code.endswith("F"):
            row, column = row - int(code[:-1]), 0
        elif code == "K":
            rows[row] = rows[row][:column]
        elif code == "J":
            rows[row:] = [rows[row][:column]]
        else:
            assert code.endswith("m"), code
    return rows


class Terminal(io.TextIOWrapper):
    """A stream that takes itself for a terminal, and keeps its output."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, newline="\r\n")

    @property
    def written(self):
        return self.buffer.getvalue().decode(self.encoding)

    def isatty(self):
        return True
