"""What happens to twelve kinds of text, from `prepare` to `squad`: what is lost, in characters, and what was said.

python benchmarks/texts.py OUT [NAME…]

Each text is made of a few dozen words. Where `prepare` refuses it, the option that its message names is added, once.
What is lost is counted here, from the offsets of the saved tokenizer: every character, white space apart, that no token
but [UNK] covers. `span EM` is the best exact match that spans of whole tokens reach on questions about the text.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lambert.finetune.squad.ceiling import best_score
from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.settings import SquadSettings

DOCUMENTS, SENTENCES, WORDS = 120, 5, 9

_OF_SHORT_RUNS = ("20 steps over", "rates for 20 steps", "the rule was published")
"""Notes about so small a run, whatever its text."""


@dataclass(frozen=True)
class Text:
    """Words of a language, and how they stand in a file."""

    words: str
    space: str = " "
    stop: str = "."
    encoding: str = "utf-8"
    options: tuple[str, ...] = ()


TEXTS = {
    "Thai": Text("แม่น้ำ ไหล ผ่าน เมือง เก่า ตลาด ขาย ผลไม้ ทุก เช้า เด็ก เดิน ไป โรงเรียน ฝน ตก หนัก บ้าน ใหญ่ ลม พัด", "", ""),
    "Lao": Text("ແມ່ນ້ຳ ໄຫຼ ຜ່ານ ເມືອງ ເກົ່າ ຕະຫຼາດ ຂາຍ ໝາກໄມ້ ເດັກ ຍ່າງ ໄປ ໂຮງຮຽນ ຝົນ ຕົກ ເຮືອນ ລົມ ພັດ", "", ""),
    "Hindi": Text("राम अपने घर में किताब पढ़ी नदी के पास पुराना मंदिर है बाज़ार गया बारिश हुई फल बेचते हैं", stop="।"),
    "Arabic, vocalised": Text("كَتَبَ الرَّجُلُ رِسَالَةً طَوِيلَةً فِي المَدِينَةِ القَدِيمَةِ قُرْبَ النَّهْرِ وُلِدَ الوَلَدُ صَبَاحًا مَطَرٌ سُوقٌ"),
    "Vietnamese": Text(
        "con sông chảy qua thành phố cổ trẻ em đi học mỗi buổi sáng chợ bán trái cây mưa lớn nhà mới má mà mả mã mạ"
    ),
    "Japanese": Text(
        "古い 町 を 川が 流れる 市場 で 果物 売る 子供 は 毎朝 学校 へ 歩いて 行く 雨が 降った パン バス ハム", "", "。"
    ),
    "Chinese": Text("古老 的 城市 河流 穿过 市场 卖 水果 孩子们 每天 早上 走路 去 学校 下 大雨 房子 很 大", "", "。"),
    "Turkish": Text(
        "eski şehrin içinden ırmak akar çocuklar her sabah okula yürür pazarda meyve satılır İstanbul yağmur yağdı ışık"
    ),
    "Polish, cp1250": Text(
        "stary młyn nad rzeką dzieci idą do szkoły każdego ranka na targu sprzedają owoce padał deszcz źródło ćma świt",
        encoding="cp1250",
    ),
    "Russian, KOI8-R": Text(
        "старый город у реки дети идут в школу каждое утро на рынке продают фрукты шёл дождь дом стоит на холме ещё",
        encoding="koi8-r",
    ),
    "protein": Text("", "", ""),
    "log": Text(""),
}


def sentence(text: Text, name: str, chance: random.Random) -> str:
    """One line of a text."""
    if name == "protein":
        return "".join(chance.choice("ACDEFGHIKLMNPQRSTVWY") for _ in range(chance.randint(120, 300)))
    if name == "log":
        level, code = chance.choice(("INFO", "WARN", "ERROR")), chance.choice((200, 301, 404, 500))
        payload = json.dumps(
            {"user": chance.randint(1, 99), "took": f"{chance.randint(1, 900)}ms"}, separators=(",", ":")
        )
        when = f"2026-03-{chance.randint(10, 28)}T12:00:{chance.randint(10, 59)}Z"
        return f"{when} {level} worker-{chance.randint(1, 8)} GET /items/{chance.randint(1, 99)} {code} {payload}"
    words = text.words.split()
    return text.space.join(chance.choice(words) for _ in range(WORDS)) + text.stop


def lost_characters(tokenizer: Tokenizer, lines: Iterable[str]) -> tuple[int, int, int]:
    """(characters, of them in [UNK], of them in no token), white space apart. A stripped mark is in no token."""
    unk = tokenizer.token_to_id("[UNK]")
    total = unknown = dropped = 0
    for line in lines:
        encoding = tokenizer.encode(line, add_special_tokens=False)
        state = [0] * len(line)
        for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            for index in range(begin, end):
                state[index] = max(state[index], 1 if token == unk else 2)
        kept = [state[index] for index, character in enumerate(line) if not character.isspace()]
        total, unknown, dropped = total + len(kept), unknown + kept.count(1), dropped + kept.count(0)
    return total, unknown, dropped


def lambert(*words: object) -> tuple[int, str]:
    """A command's exit code, and what it said that begins with `lambert:`, `note` or is its last line."""
    done = subprocess.run([sys.executable, "-m", "lambert", *map(str, words)], capture_output=True, text=True)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if re.match(r"lambert:|note ", line)]
    said = [re.sub(r"^note +|^lambert: ", "", line) for line in said]
    return done.returncode, " / ".join(
        dict.fromkeys(line for line in said if not line.startswith(("load:", *_OF_SHORT_RUNS)))
    )


def prepare(file: Path, corpus: Path, options: tuple[str, ...]) -> tuple[int, str, tuple[str, ...]]:
    """`lambert prepare`, and once more with the option that its refusal names."""
    words = ("prepare", file, "--out", corpus, "--vocab-size", 400)
    code, said = lambert(*words, *options)
    if code == 2 and (named := re.search(r"--([a-z-]+)(?: \([^)]*\))?,? (?:such as )?([\w-]+)", said)):
        options = (*options, f"--{named[1]}", named[2])
        again, then = lambert(*words, *options)
        return again, f"{said} / with {' '.join(options)}: {then or 'nothing said'}", options
    return code, said, options


def questions_of(lines: list[str]) -> list[Question]:
    """Questions about a word of each line, or about ten characters where it has no spaces."""
    questions = []
    for number, line in enumerate(lines[:20]):
        words = line.split()
        answer = words[len(words) // 2] if len(words) > 2 else line[len(line) // 3 : len(line) // 3 + 10]
        while answer and unicodedata.combining(answer[0]):
            answer = answer[1:]
        answer = answer.strip(".,。।")
        questions.append(Question(str(number), line[:20], line, (Answer(answer, line.index(answer)),)))
    return questions


def squad_file(path: Path, questions: list[Question]) -> Path:
    """The questions in SQuAD's format."""
    paragraphs = [
        {
            "context": question.context,
            "qas": [
                {
                    "id": question.id,
                    "question": question.question,
                    "answers": [{"text": answer.text, "answer_start": answer.start} for answer in question.answers],
                }
            ],
        }
        for question in questions
    ]
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def measure(name: str, out: Path) -> dict[str, object]:
    """One row of the table."""
    text, chance = TEXTS[name], random.Random(name)
    documents = [[sentence(text, name, chance) for _ in range(SENTENCES)] for _ in range(DOCUMENTS)]
    lines = [line for document in documents for line in document]
    folder = out / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True)
    file = folder / "text.txt"
    file.write_bytes("\n\n".join("\n".join(document) for document in documents).encode(text.encoding))
    code, said, options = prepare(file, folder / "corpus", text.options)
    row: dict[str, object] = {"text": name, "options": " ".join(options), "prepare": code, "prepare_said": said}
    if code:
        return row
    tokenizer = Tokenizer.from_file(str(folder / "corpus" / "tokenizer" / "tokenizer.json"))
    row["characters"], row["unknown"], row["dropped"] = lost_characters(tokenizer, lines)
    asked = questions_of(lines)
    row["span_em"] = round(best_score(asked, tokenizer, SquadSettings()).exact_match, 1)
    run = ("--corpus", folder / "corpus", "--model", "2x32", "--batch-size", 8, "--samples", 160)
    short = ("--sequence-lengths", 32, 64)
    row["plan"], row["plan_said"] = lambert("plan", *run, *short, "--probe-seconds", 0)
    row["pretrain"], row["pretrain_said"] = lambert(
        "pretrain", *run, *short, "--probe-seconds", 0, "--out", folder / "run"
    )
    cut = lines[0][: len(lines[0]) // 2]
    row["fill"], row["fill_said"] = lambert("fill", folder / "run", f"{cut} [MASK]")
    questions = squad_file(folder / "squad.json", asked)
    squad = ("--sequence-length", 64, "--epochs", 1, "--batch-size", 4, "--out", folder / "squad")
    row["squad"], row["squad_said"] = lambert("squad", folder / "run", "--train", questions, "--dev", questions, *squad)
    return row


def main() -> None:
    """Measure each text; print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TEXTS))
    given = parser.parse_args()
    rows = [measure(name, given.out) for name in given.names or TEXTS]
    print(f"{'text':18} {'options':28} {'characters':>10} {'[UNK]':>6} {'dropped':>7} {'span EM':>7}  exit codes")
    for row in rows:
        cells = (("characters", 10), ("unknown", 6), ("dropped", 7), ("span_em", 7))
        counts = " ".join(f"{row.get(key, '-'):>{width}}" for key, width in cells)
        codes = {step: row[step] for step in ("prepare", "plan", "pretrain", "fill", "squad") if step in row}
        ended = " ".join(f"{step} {code}" for step, code in codes.items())
        print(f"{row['text']:18} {row['options']:28} {counts}  {ended}")
        for step in codes:
            if row[f"{step}_said"]:
                print(f"{'':20}{step}: {row[f'{step}_said']}")
    print(json.dumps({"benchmark": "texts", "rows": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()
