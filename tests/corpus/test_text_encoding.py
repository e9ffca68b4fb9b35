"""Files in old encodings: Python's codecs write them, so what should be read is known."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lambert.corpus.readers.document import ReadStatistics
from lambert.corpus.sources import TextReader
from lambert.corpus.text_encoding import as_utf8, check_encoding
from lambert.errors import UserError

WORDS = {
    "ru": "старый тихий новый пекарь река мотор сад лётчик письмо открыл увидел продал перед ужином под дождём",
    "uk": "їжак і її ґанок старий пекар річка сад лист відкрив побачив продав перед вечерею під дощем міст три дні",
    "pl": "żółty źrebak śpi cicho pod dębem ławka rzeka książka ćma noc świat dziękuję mąż gęś łódź piękny ogród",
    "el": "ο παλιός κήπος άνοιξε την πόρτα ποτάμι γέφυρα γράμμα πουλήθηκε πριν από το βράδυ βροχή τρεις ημέρες",
    "th": "ฉัน แมว บ้าน แม่น้ำ ครู หนังสือ กิน อ่าน เดิน ซื้อ เห็น ข้าว ปลา เช้า เย็น ใหญ่ เล็ก",
    "ja": "パン屋 静かな 川 庭 手紙 開けた 見た 売った 直した 朝 雨 橋 三日 夕食",
    "zh": "老 绿 安静 小河 花园 信件 工人 看见 卖掉 修好 打开 早上 雨中 桥边 三天 晚饭 之前 他们 我们",
    "fr": "l'élève déjà où été forêt château garçon français première lumière dîner hôtel près de la rivière très âgé",
    "es": "el niño pequeño abrió la puerta del jardín mañana el río está lejos señor corazón también después",
}


def text(language: str, lines: int = 400) -> str:
    draw, words = random.Random(3), WORDS[language].split()
    return "".join(" ".join(draw.choice(words) for _ in range(12)) + ".\n" for _ in range(lines))


def read(file: Path, raw: bytes, **options: str) -> tuple[str, dict[str, str]]:
    file.write_bytes(raw)
    reader = TextReader([file], **options)
    (document,) = reader
    return "".join(f"{line}\n" for line in document.paragraphs), reader.statistics.encodings


SURE = [("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "cp866"), ("ru", "iso8859-5"), ("uk", "cp1251"), ("pl", "cp1250"),
        ("el", "iso8859-7"), ("th", "cp874"), ("ja", "shift_jis"), ("ja", "iso2022_jp"), ("zh", "gbk"),
        ("zh", "utf-16"), ("fr", "utf-32"), ("es", "utf-8-sig")]  # fmt: skip


@pytest.mark.parametrize(("language", "encoding"), SURE)
def test_a_sure_detection_is_taken_and_told(tmp_path: Path, language: str, encoding: str) -> None:
    wanted = text(language)
    found, encodings = read(tmp_path / "a.txt", wanted.encode(encoding))
    assert found == wanted
    assert bool(encodings) == (encoding != "utf-8-sig")


@pytest.mark.parametrize(("language", "encoding"), [("fr", "latin-1"), ("es", "cp1252"), ("fr", "cp850")])
def test_where_none_is_sure_the_likely_ones_are_named_and_one_can_be_given(
    tmp_path: Path, language: str, encoding: str
) -> None:
    wanted = text(language)
    with pytest.raises(
        UserError, match="a.txt is not UTF-8; it may be cp1252 .* or .*Give its `encoding`, such as cp1252"
    ):
        read(tmp_path / "a.txt", wanted.encode(encoding))
    found, encodings = read(tmp_path / "a.txt", wanted.encode(encoding), encoding=encoding)
    assert found == wanted
    assert encodings


def test_an_encoding_is_for_the_files_that_are_not_utf8(tmp_path: Path) -> None:
    wanted = text("ru")
    assert read(tmp_path / "a.txt", wanted.encode(), encoding="cp1251") == (wanted, {})
    little = wanted.encode("utf-16-le")
    assert read(tmp_path / "b.txt", little, encoding="utf-16-le")[0] == wanted


def test_what_is_not_ascii_may_come_late_and_records_are_decoded_too(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"text": line}, ensure_ascii=False) for line in ["Plain."] * 50_000 + text("ru").split("\n")[:-1]
    ]
    file.write_bytes("\n".join(lines).encode("cp1251"))
    documents = [document.paragraphs for document in TextReader([file])]
    assert documents[0] == ["Plain."]
    assert documents[-1] == [text("ru").split("\n")[-2]]


@pytest.mark.parametrize("size", [1, 7, 100, 5_000])
def test_blocks_cut_characters_anywhere(size: int) -> None:
    """UTF-8 is never taken for another encoding, and the encoding given decodes across blocks."""
    for raw, given in ((text("zh", 40).encode(), "gb18030"), (text("zh", 40).encode("utf-16"), None)):
        blocks = [raw[start : start + size] for start in range(0, len(raw), size)]
        if given is None and size < 4:
            continue  # the mark is in one block, as in files: blocks have a megabyte
        statistics = ReadStatistics()
        assert b"".join(as_utf8(Path("a.txt"), iter(blocks), statistics, given)).decode() == text("zh", 40)
        assert not statistics.replaced_bytes


def test_damaged_utf8_is_refused_beyond_a_few_bytes_unless_it_is_accepted(tmp_path: Path) -> None:
    raw = bytearray(text("ru").encode())
    for place in range(0, len(raw), 30):
        raw[place] = 0xFF
    with pytest.raises(UserError, match=r"of the .* bytes of .*a.txt are not UTF-8.*`encoding` utf-8"):
        read(tmp_path / "a.txt", bytes(raw))
    found, _ = read(tmp_path / "a.txt", bytes(raw), encoding="utf-8")
    assert found.count("\ufffd") > 100


def misread(raw: bytes, encoding: str) -> str:
    """As programs read it: a byte that the encoding does not name stays the control character of its number."""
    each = (bytes([byte]).decode(encoding, "replace").replace("\ufffd", chr(byte)) for byte in raw)
    return "".join(each)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "mac-roman", "cp437"])
@pytest.mark.parametrize("language", WORDS)
def test_utf8_that_was_misread_and_written_again_is_refused(tmp_path: Path, language: str, encoding: str) -> None:
    wanted = text(language)
    twice = misread(wanted.encode(), encoding).encode()
    with pytest.raises(UserError, match=r"a.txt is UTF-8 that was taken for .*`encoding` utf-8 to learn it"):
        read(tmp_path / "a.txt", twice)
    assert read(tmp_path / "a.txt", twice, encoding="utf-8")[1] == {}
    little = wanted.encode() + b"caf\xc3\x83\xc2\xa9\n"
    assert read(tmp_path / "a.txt", little)[0].startswith(wanted)


@pytest.mark.parametrize("name", ["cp99999", "zip", "rot13", "unicode_escape", "idna", "", "utf-8\0"])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no encoding of text.*cp1251"):
        check_encoding(name)


def test_small_letters_lead_where_two_encodings_only_differ_in_case(tmp_path: Path) -> None:
    words = ["старый", "город", "у", "реки", "дети", "идут", "в", "школу", "утро", "рынке", "фрукты", "дождь"]
    chance = random.Random(0)
    lines = "\n".join(" ".join(chance.choice(words) for _ in range(9)) for _ in range(300))
    with pytest.raises(UserError) as refused:
        read(tmp_path / "a.txt", lines.encode("koi8-r"))
    assert f"it may be koi8_r ({lines[:24]!r}) or cp1251" in refused.value.what
    assert "such as koi8_r" in refused.value.remedy
