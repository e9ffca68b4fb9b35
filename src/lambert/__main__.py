"""`python -m lambert` is the same as `lambert`."""

from __future__ import annotations

from lambert.cli.main import end

if __name__ == "__main__":
    end()
