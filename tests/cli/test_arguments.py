"""Words of the command line: counts as people write them, and names that do not exist."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lambert.cli.arguments import parse_count, read_arguments
from lambert.cli.main import SUBCOMMANDS, main
from lambert.errors import UserError


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("samples", "512M", 512_000_000),
        ("samples", "1e6", 1_000_000),
        ("samples", "2.5e3", 2_500),
        ("samples", "32k", 32_000),
        ("samples", "1.5M", 1_500_000),
        ("samples", "2G", 2_000_000_000),
        ("samples", "1_000_000", 1_000_000),
        ("samples", "32,768", 32_768),
        ("samples", "4Ki", 4_096),
        ("vocab_size", "30K", 30_000),
        ("batch_size", "64K", 65_536),
        ("batch_size", "32k", 32_768),
        ("batch_size", "1Mi", 1_048_576),
        ("sequence_lengths", "2k", 2_048),
        ("seed", "-1", -1),
        ("seed", "0", 0),
    ],
)
def test_a_count_is_read_as_people_write_it(option: str, text: str, value: int) -> None:
    assert parse_count(option, text) == value


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("samples", "1.5", "--samples 1.5: not a whole number. Give 1 or 2."),
        ("samples", "many", "not a whole number. Give one such as 4096"),
        ("samples", "", "not a whole number"),
        ("samples", "k", "not a whole number"),
        ("samples", "e5", "not a whole number"),
        ("samples", "1,5", "not a whole number"),
        ("samples", "3,2768", "not a whole number"),
        ("samples", "5T", "not a whole number"),
        ("samples", "٣", "not a whole number"),
        ("samples", "1e-3", "not a whole number. Give 0 or 1."),
        ("samples", "1e999999999", "too large"),
        ("batch_size", "1M", "M has two meanings here. Give all digits, or 1Mi."),
    ],
)
def test_what_is_no_count_is_refused(option: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_count(option, text)


def test_every_count_of_every_subcommand_takes_units() -> None:
    for name, subcommand in SUBCOMMANDS.items():
        for field in dataclasses.fields(subcommand):  # type: ignore[arg-type]
            if "int" in str(field.type).replace("Positional", ""):
                flag = f"--{field.name.replace('_', '-')}"
                assert read_arguments(name, [flag, "1Ki"], SUBCOMMANDS)[0] == [flag, "1024"], (name, flag)
                assert read_arguments(name, [f"{flag}=1Ki"], SUBCOMMANDS)[0] == [f"{flag}=1024"]


def test_other_words_stay_as_they_are() -> None:
    given = ["folder/1M", "-", "- a [MASK] 5k", "--out", "32k", "--vocab-size", "8k", "4k"]
    read, notes = read_arguments("prepare", given, SUBCOMMANDS)
    assert read == [*given[:6], "8000", "4k"]
    assert notes == ["read      --vocab-size 8k as 8,000"]


def test_a_plan_says_how_it_read_a_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--batch-size", "64K", "32K", "--samples=512M", "--model", "large", "--no-probe"]) == 0
    printed = capsys.readouterr().out
    for line in ("--batch-size 64K as 65,536", "--batch-size 32K as 32,768", "--samples 512M as 512,000,000"):
        assert f"read      {line}\n" in printed
    assert "phase 2: sequences of 512, batch 32,768" in printed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plan --corups X", "lambert plan has no option --corups. Did you mean --corpus?"),
        ("pretrain --corups=X --batch-size many", "Did you mean --corpus?"),
        ("pretrain --otu X", "Did you mean --out?"),
        ("squad m --seds 3", "Did you mean --seeds?"),
        ("plan -corpus X", "lambert plan has no option -corpus. Did you mean --corpus?"),
        ("plan --batch 8", "Did you mean --batch-size?"),
        ("squad --model run", "Did you mean MODEL_FOLDER, without a flag?"),
        ("plan --keep-last 3", "`lambert pretrain` has it"),
        ("pretrain --optimizer lmab", "unknown optimizer 'lmab'. Did you mean 'lamb'?"),
        ("pretrain --pairs=nps --epochs", "unknown pairs 'nps'. Did you mean 'nsp'?"),
        ("plan --masking whole-word", "unknown masking 'whole-word'. Did you mean 'whole_word'?"),
        ("plan --precision bfloat", "Did you mean 'bfloat16-autocast'?"),
        ("prepare text --deduplicate nera", "unknown deduplicate 'nera'. Did you mean 'near'?"),
        ("pretrain --on-spike rolback", "Did you mean 'rollback'?"),
        ("pretrain --activation-checkpointing selectiv", "Did you mean 'selective'?"),
        ("pretrain --reduce-dtype bf16", "Did you mean 'bfloat16'?"),
        ("--verison", "lambert has no option --verison. Did you mean --version?"),
        ("plan --batch-size many", "--batch-size many: not a whole number"),
        ("plan --epochs 1,5", "--epochs 1,5: not a number"),
    ],
)
def test_what_is_wrong_is_said_whatever_else_is_missing(
    line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


@pytest.mark.parametrize("value", ["-inf", "-Infinity", "-nan", "-1e3", "-1E-3"])
@pytest.mark.parametrize(
    ("subcommand", "option"),
    [
        (name, field.name)
        for name, kind in SUBCOMMANDS.items()
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if re.search(r"\bfloat\b", str(field.type))
    ],
)
def test_a_negative_number_in_any_notation_is_a_value_and_no_flag(subcommand: str, option: str, value: str) -> None:
    flag = f"--{option.replace('_', '-')}"
    if value[1:].isalpha():
        with pytest.raises(UserError, match=f"{flag} {value}: not a number"):
            read_arguments(subcommand, [flag, value], SUBCOMMANDS)
    else:
        (_, read), _ = read_arguments(subcommand, [flag, value], SUBCOMMANDS)
        assert re.fullmatch(r"-\d+|-\d*\.\d+", read)  # what argparse takes for a negative number
        assert float(read) == float(value)
