"""What a Hugging Face folder says of its tokenizer: applied in full, or refused by the setting's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import BertNormalizer

from lambert.corpus.tokenizer_rules import rule_differences, rules_of
from lambert.corpus.vocabulary import CLASSIFY, MASK, PAD, SEPARATE, SPECIAL, UNKNOWN, bert_tokenizer
from lambert.errors import UserError
from lambert.utils.io import SETTINGS_BYTES, VOCABULARY_BYTES, read_json

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TOKEN_SETTINGS = {
    "pad_token": PAD, "unk_token": UNKNOWN, "cls_token": CLASSIFY, "sep_token": SEPARATE, "mask_token": MASK,
}  # fmt: skip
RULES_IN_SETTINGS, RULES_IN_FILE = "BertTokenizer", "PreTrainedTokenizerFast"
"""Classes of `transformers`: one builds BERT's rules from the settings, the other takes those of `tokenizer.json`."""

_BERTS = ("Bert", "ConvBert", "DistilBert", "Electra", "MobileBert", "SqueezeBert")
_CLASSES = {
    **{f"{name}Tokenizer{fast}": RULES_IN_SETTINGS for name in _BERTS for fast in ("", "Fast")},
    **dict.fromkeys((RULES_IN_FILE, "TokenizersBackend"), RULES_IN_FILE),
}
# Settings that change the rules in a way which this loader does not follow; with these values they change nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True,),
    "never_split": ([],),
    "wordpieces_prefix": ("##",),
    "clean_text": (True,),
    "split_special_tokens": (False,),
}


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings of a folder; without any, BERT's rules."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    """`tokenizer_config.json`, and what only `special_tokens_map.json` says."""
    added: dict[int, AddedToken] = field(default_factory=dict)
    """Tokens of `added_tokens_decoder`, else of `added_tokens.json`, by id."""

    @classmethod
    def read(cls, folder: Path) -> TokenizerSettings:
        """Reads the settings of a folder.

        Raises:
            UserError: a file is damaged, or a setting is one that BERT's tokenizer does not follow.
        """
        special = _object(folder / SPECIAL_FILE)
        values = {
            **special,
            **{name: value for name, value in _object(folder / CONFIG_FILE).items() if value is not None},
        }
        if "tokenizer_class" not in values:
            model = _object(folder / "config.json")
            of_model = RULES_IN_FILE if model.get("model_type") == "modernbert" else None
            values["tokenizer_class"] = model.get("tokenizer_class") or of_model
        found = cls(folder, values, _added_tokens(folder, values))
        found._refuse_unknown_rules()
        return found

    @property
    def says_case(self) -> bool:
        """Whether a setting decides between upper and lower case."""
        return "do_lower_case" in self.values

    @property
    def _kind(self) -> str | None:
        name = self.values.get("tokenizer_class") or RULES_IN_SETTINGS
        return _CLASSES.get(str(name))

    def normalizer(self, *, cased: bool) -> BertNormalizer:
        """The rules of the settings; `cased` where none says."""
        return BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.values.get("tokenize_chinese_chars", True),
            strip_accents=self.values.get("strip_accents"),
            lowercase=self.values.get("do_lower_case", not cased),
        )

    def refuse_contradictions(self, tokenizer: Tokenizer, file: Path) -> None:
        """Refuses a `tokenizer.json` whose rules are not those of the settings, from which `transformers` builds them.

        Raises:
            UserError: names the settings.
        """
        if self._kind == RULES_IN_FILE:
            self._refuse_prefix_space(tokenizer, file)
            return
        wanted = bert_tokenizer(list(SPECIAL), self.normalizer(cased=False))
        if differences := rule_differences(rules_of(tokenizer), rules_of(wanted)):
            raise UserError(
                f"{file} and {CONFIG_FILE} beside it differ, of which transformers follows the latter: "
                + "; ".join(f"{name} is {ours!r}, not {theirs!r}" for name, ours, theirs in differences),
                remedy=f'To follow {file.name}, write "tokenizer_class": "{RULES_IN_FILE}" into {CONFIG_FILE}, or give '
                f"{file.name} itself; to follow {CONFIG_FILE}, give a folder with vocab.txt and without {file.name}",
            )

    def _refuse_prefix_space(self, tokenizer: Tokenizer, file: Path) -> None:
        """Some versions of `transformers` follow this setting, others the file."""
        wanted = self.values.get("add_prefix_space")
        found = getattr(tokenizer.pre_tokenizer, "add_prefix_space", wanted)
        if wanted not in (None, found):
            raise UserError(
                f"{self.folder / CONFIG_FILE}: add_prefix_space is {wanted!r}, in {file.name} it is {found!r}",
                remedy=f"Take it out of {CONFIG_FILE} to follow {file.name}, or mend that",
            )

    def refuse_rules_in_file(self) -> None:
        """Refuses a folder without the `tokenizer.json` in which its rules would be.

        Raises:
            UserError: names the setting.
        """
        if self._kind == RULES_IN_FILE:
            name = self.values["tokenizer_class"]
            raise UserError(
                f"{self.folder / CONFIG_FILE}: tokenizer_class is {name!r}, but the folder has no tokenizer.json",
                remedy=f'Add tokenizer.json, or write "{RULES_IN_SETTINGS}" where vocab.txt is read by BERT\'s rules',
            )

    def add_tokens(self, tokenizer: Tokenizer, file: Path) -> None:
        """Adds the folder's tokens to the tokenizer read from `file`.

        Raises:
            UserError: an id is not that of the entry, or has a gap before it, or a token has no id at all.
        """
        known = tokenizer.get_vocab(with_added_tokens=True)
        for number, token in sorted(self.added.items()):
            next_id = len(known)
            if known.setdefault(token.content, next_id) != number:
                raise UserError(
                    f"{self.folder}: the added token {token.content!r} has the id {number:,}, in {file.name} it is "
                    f"{known[token.content]:,}",
                    remedy="Mend added_tokens_decoder or added_tokens.json, or fetch the folder again",
                )
            if tokenizer.get_added_tokens_decoder().get(number) != token:
                tokenizer.add_tokens([token])
        for name, content in self._further_tokens():
            if content not in known:
                raise UserError(
                    f"{self.folder}: {name} names {content!r}, which has no id",
                    remedy=f"Add it to the end of {file.name} or to added_tokens.json, or take it out of {name}",
                )
            if known[content] not in tokenizer.get_added_tokens_decoder():
                tokenizer.add_special_tokens([content])

    def _further_tokens(self) -> list[tuple[str, str]]:
        """(setting, token) of the special tokens beyond BERT's."""
        found = []
        for name, value in self.values.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                listed = list(value.values()) if isinstance(value, dict) else value
                found += [(name, _content(self.folder, name, one)) for one in listed]
            elif name.endswith("_token") and name not in TOKEN_SETTINGS and isinstance(value, (str, dict)):
                found.append((name, _content(self.folder, name, value)))
        return found

    def _refuse_unknown_rules(self) -> None:
        def refuse(name: str, value: Any, wanted: str) -> UserError:
            return UserError(
                f"{self.folder / CONFIG_FILE}: {name} is {value!r}, not {wanted}",
                remedy="Give a folder with the tokenizer of the original BERT family or of ModernBERT",
            )

        if self._kind is None:
            raise refuse("tokenizer_class", self.values["tokenizer_class"], f"{RULES_IN_SETTINGS} or {RULES_IN_FILE}")
        if "AutoTokenizer" in (self.values.get("auto_map") or {}):
            raise refuse("auto_map", self.values["auto_map"], "absent: it names code of its own")
        for name, harmless in _WITHOUT_EFFECT.items():
            if name in self.values and self.values[name] not in harmless:
                raise refuse(name, self.values[name], repr(harmless[0]))
        for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            if not isinstance(self.values.get(name, False), bool):
                raise refuse(name, self.values[name], "true or false")
        for name, wanted in TOKEN_SETTINGS.items():
            if name in self.values and _content(self.folder, name, self.values[name]) != wanted:
                raise refuse(name, self.values[name], repr(wanted))


def _object(path: Path, most: int = SETTINGS_BYTES) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    try:
        found = read_json(path, most)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})", remedy="Fetch or export the model again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object", remedy="Fetch or export the model again")
    return found


def _added_tokens(folder: Path, values: dict[str, Any]) -> dict[int, AddedToken]:
    described = values.get("added_tokens_decoder")
    try:
        if described is not None:
            return {int(number): AddedToken(**token) for number, token in described.items()}
        special = {
            one["content"] if isinstance(one, dict) else one for one in values.get("additional_special_tokens", ())
        }
        numbers = _object(folder / ADDED_FILE, VOCABULARY_BYTES).items()
        return {int(n): AddedToken(token, special=token in special or token in SPECIAL) for token, n in numbers}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = ADDED_FILE if described is None else f"added_tokens_decoder in {CONFIG_FILE}"
        raise UserError(f"{folder}: {where} is wrong ({error})", remedy="Fetch or export the model again") from None


def _content(folder: Path, name: str, value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise UserError(f"{folder}: {name} is {value!r}, not a token", remedy="Fetch or export the model again")
    return content
