"""Which arguments differ between a run in its folder and those given now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lambert.utils.diff import flatten

_SAME = ("optimizer", "ema_decay", "seed", "precision", "reduce_dtype", "deterministic", "no_compile", "threads")
_OF_THE_MODEL = (
    "layers", "hidden_size", "attention_heads", "feed_forward_size", "segment_types", "layer_norm_epsilon",
    "initializer_range",
)  # fmt: skip
_OF_MODERNBERT = (
    "model.global_every", "model.local_window", "model.global_rotary_base", "model.local_rotary_base",
)  # fmt: skip
_OF_THE_RECIPE = (
    "weight_decay", "adamw_lr_ratio", "betas", "epsilon", "max_grad_norm", "phases.stable_steps", "phases.decay",
    "phases.decay_power", "phases.decays_from_start", "phases.min_lr_ratio", "phases.cooldown_steps",
    "phases.continues", "phases.global_rope_theta",
)  # fmt: skip
ARGUMENTS = {
    "corpus_fingerprint": "corpus", "model.vocabulary_size": "corpus", "model.pad_token_id": "corpus",
    "model_name": "model", "model.architecture": "architecture", **dict.fromkeys(_OF_MODERNBERT, "init_from"),
    **{f"model.{name}": "model" for name in _OF_THE_MODEL},
    "model.dropout": "dropout", "model.attention_dropout": "attention_dropout",
    "model.tied_decoder": "init_from", "model.classifier_dropout": "init_from", "initial_weights": "init_from",
    "phases.batch_size": "batch_size", "phases.sequence_length": "sequence_lengths",
    "model.maximum_positions": "sequence_lengths", "micro_batch_sizes": "micro_batch_size",
    "examples.pairing": "pairs", "examples.masking": "masking", "examples.mlm_probability": "mlm_probability",
    "examples.mlm_probability_end": "mlm_probability_end",
    "packs": "pack", **{name: name for name in _SAME}, **dict.fromkeys(_OF_THE_RECIPE, "recipe"),
    "samples": "samples", "phases.steps.value": "samples", "phases.samples": "samples", "phases.tokens": "samples",
    "phases.peak_learning_rate.value": "learning_rate", "phases.warmup_steps.value": "warmup_ratio",
}  # fmt: skip
"""Setting of `TrainingConfig.as_tables`, without the number of the phase → the argument that sets it."""
_DERIVED = ("samples", "learning_rate", "warmup_ratio")
_NOT_COMPARED = re.compile(r"command|lambert|.*\.(formula|provenance)")


def clashes(recorded: Mapping[str, Any], current: Mapping[str, Any], *, ignored: tuple[str, ...] = ()) -> list[str]:
    """The arguments that differ, each as "`batch_size` 64 (the run has 256)"; empty if none does.

    What follows from another difference is left out: other steps because of another batch size.

    Args:
        recorded, current: tables of `TrainingConfig.as_tables`.
        ignored: settings that may differ.
    """
    there, now = flatten(recorded), flatten(current)
    differing = [
        key
        for key in dict.fromkeys([*now, *there])
        if there.get(key) != now.get(key) and not _NOT_COMPARED.fullmatch(key) and key not in ignored
    ]
    if "deterministic" in differing:
        differing = [key for key in differing if key not in ("threads", "micro_batch_sizes")]
    settings = dict.fromkeys(re.sub(r"^phases\.\d+\.", "phases.", key) for key in differing)
    arguments = {ARGUMENTS.get(setting, setting) for setting in settings}
    causes = arguments.difference(_DERIVED) or arguments & {"samples"}
    texts = [
        _text(setting, there, now)
        for setting in settings
        if ARGUMENTS.get(setting, setting) in causes or not causes or _is_given(setting, there, now)
    ]
    return list(dict.fromkeys(text for text in texts if text)) or [
        f"{key} {now.get(key, 'nothing')} (the run has {there.get(key, 'nothing')})" for key in differing
    ]


def _text(setting: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The argument of one setting with both values; "" where they look the same, as in one phase more."""
    argument = ARGUMENTS.get(setting)
    if argument == "corpus":
        return "another `corpus`"
    shown = {"model": "model_name", "sequence_lengths": "phases.sequence_length", "samples": "samples"}
    setting = shown.get(argument or "", setting)
    mine, its = _values(setting, now), _values(setting, there)
    if argument == "samples" and mine == its:
        argument, mine, its = "phase_fractions", _fractions(now), _fractions(there)
    if setting.startswith("phases.") and len({*mine}) == len({*its}) == 1:
        mine, its = mine[:1], its[:1]
    if mine == its:
        return ""
    if argument != "recipe" and mine in (["true"], ["false"]):
        return f"`{argument}=True` (the run is without)" if mine == ["true"] else f"no `{argument}` (the run has it)"
    names = {"recipe": f"`recipe` with {setting.removeprefix('phases.')}", "samples": "`samples` or `epochs`:"}
    unit = {"samples": " samples", "warmup_ratio": " steps"}.get(argument or "", "")
    name = names.get(argument or "", f"`{argument}`" if argument else setting)
    return f"{name} {' '.join(mine) or 'none'}{unit} (the run has {' '.join(its) or 'none'})"


def _values(setting: str, table: Mapping[str, Any]) -> list[str]:
    """The values of a setting, of each phase if it has one for each."""
    name = setting.removeprefix("phases.")
    keys = [setting] if name == setting else [key for key in table if re.fullmatch(rf"phases\.\d+\.{name}", key)]
    values = [table[key] for key in keys if key in table]
    flat = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return [str(item).lower() if isinstance(item, bool) else _shown(item) for item in flat if item != ""]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:12] if len(str(value)) == 64 else str(value)  # a SHA-256


def _fractions(table: Mapping[str, Any]) -> list[str]:
    samples = [int(count) for count in _values("phases.samples", table)]
    return [f"{count / sum(samples):.2g}" for count in samples]


def _is_given(setting: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a number that usually follows from others was given by the user, then or now."""
    provenance = setting.removesuffix(".value") + ".provenance"
    return setting != provenance and "given" in _values(provenance, there) + _values(provenance, now)
