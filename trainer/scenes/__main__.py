"""`python -m cn2.trainer.scenes OUT --count N --seed S`: the command without the others."""

import sys

import typer

from cn2.runtime.errors import Cn2Error

from .commands import scenes


def main() -> int:
    """Run the command; an error is one line on stderr and exit code 2."""
    try:
        typer.run(scenes)
    except (Cn2Error, ValueError) as error:
        sys.stderr.write(f"scenes: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
