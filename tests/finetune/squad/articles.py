"""Made-up articles, and the official layout around them."""

from __future__ import annotations

from typing import Any

HARBOUR = (
    "The harbour of Brightsea was built in 1843 by the engineer Edna Marlowe. It cost 12,500 pounds, a sum "
    "that the town paid back over thirty years. Fishing boats, coal ships and one royal yacht used its two "
    "piers. In 1901 a storm broke the northern pier; the southern pier still stands, and its lamp is lit "
    "each evening."
)
CAFE = (
    "Das Café “Zürich” in São Paulo opened in 1921. İstanbul’s naïve coöperation — so the façade says — "
    "began with 東京 merchants: 日本銀行 lent ¥5,000. Its e\u0301tude room has a 🎹 piano and an ﬁne organ."
)


def squad_document(*paragraphs: tuple[str, list[tuple[str, str, list[tuple[str, int]]]]]) -> dict[str, Any]:
    """(context, [(id, question, [(answer, start)])]) → the official layout, one article a paragraph."""
    return {
        "version": "1.1",
        "data": [
            {
                "title": f"Article {index}",
                "paragraphs": [
                    {
                        "context": context,
                        "qas": [
                            {
                                "id": identifier,
                                "question": question,
                                "answers": [{"text": text, "answer_start": start} for text, start in answers],
                            }
                            for identifier, question, answers in questions
                        ],
                    }
                ],
            }
            for index, (context, questions) in enumerate(paragraphs)
        ],
    }
