"""lambert: pre-train BERT encoders with LAMB, at any batch size.

Importing the package loads nothing heavy; each room is imported by its own name, for example
`from lambert.optim import LAMB`.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
