"""The command `lambert`, and `python -m lambert`."""

from __future__ import annotations

import sys

from lambert.errors import EXIT_INTERRUPTED, missing_package, was_interrupted


def end() -> None:
    """Run the command line and exit with its code; 2, with one line, if its packages are not installed."""
    try:
        from lambert.cli.main import end as run
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        sys.stderr.write(f"lambert: {missing}\n")
        sys.exit(missing.exit_code)
    except BaseException as error:
        if not was_interrupted(error):
            raise
        sys.stderr.write("lambert: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    run()


if __name__ == "__main__":
    end()
