"""The optimizer family: LAMB and the parameter groups it is used with. Imports torch and nothing of ours."""

from __future__ import annotations

from lambert.optim.lamb import LAMB, lamb_update
from lambert.optim.layers import parameter_groups

__all__ = ["LAMB", "lamb_update", "parameter_groups"]
