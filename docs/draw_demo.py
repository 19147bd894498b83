# ruff: noqa: INP001  # a script, in no package
"""Draw docs/demo.svg: run `querycrew demo`, and show its output as a picture of a terminal.

Run it as `python docs/draw_demo.py` in an environment in which querycrew is installed. It needs no
other package. The picture loads no font and no other file.
"""

import re
import subprocess
import sys
from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("demo.svg")
LINE = 18  # pixels from one line to the next
COLUMN = 8.2  # pixels for a character, in most monospaced fonts of this size
COLOURS = {  # of a line that contains the text
    "killing worker": "#ff7b72",
    "is rejected": "#ff7b72",
    "WorkerDied": "#ff7b72",
    "has taken the place": "#7ee787",
    "searches answered": "#7ee787",
}


def main() -> None:
    """Write the picture."""
    command = [sys.executable, "-m", "actors.console", "demo"]
    output = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout  # noqa: S603
    # The demo's file lies in a folder for temporary files, which has another name each time.
    output = re.sub(r"'[^']*/(unicode\.db)'", r"'\1'", output)
    lines = ["$ querycrew demo", *output.rstrip().split("\n")]
    PICTURE.write_text(_picture(lines), "utf-8")


def _picture(lines: list[str]) -> str:
    width = max(map(len, lines)) * COLUMN + 40
    height = len(lines) * LINE + 40
    texts = "\n".join(_text(line, 34 + number * LINE) for number, line in enumerate(lines) if line)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">\n'
        "<title>The output of querycrew demo</title>\n"
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#161b22"/>\n'
        '<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="13.5" fill="#e6edf3">\n'
        f"{texts}\n</g>\n</svg>\n"
    )


def _text(line: str, y: int) -> str:
    colour = next((f' fill="{colour}"' for text, colour in COLOURS.items() if text in line), "")
    length = f'textLength="{len(line) * COLUMN:.0f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="20" y="{y}" xml:space="preserve" {length}{colour}>{escape(line)}</text>'


if __name__ == "__main__":
    main()
