"""Answers to datagrams and messages as they come, those that were given before kept under the question's bytes."""

from __future__ import annotations

import random

from wherry.network.dns import message
from wherry.network.dns.message import Question
from wherry.network.dns.zone import Zone

KEPT = 1000
"""Questions of one container whose answers are kept; then all are forgotten, as a program may ask for anything."""

_KEY_MAX = 300
_TURNS = 16
"""Containers of one name of which each is named first in turn; of more a random order is made for each answer."""


class Answers:
    """What the zone has to say to a question. What is kept holds until `clear`, for any change of the zone."""

    def __init__(self, zone: Zone) -> None:
        """Keep nothing yet."""
        self._zone = zone
        self._kept: dict[str, dict[bytes, list[bytes]]] = {}

    def clear(self) -> None:
        """The zone has changed."""
        self._kept.clear()

    def find(self, sandbox_id: str, data: bytes, size: int | None = None) -> bytes | Question | None:
        """Return the answer to a message; the question when it is for other servers, None when there is no answer.

        size: the largest answer; without it what the question says (UDP), and then it is kept.
        """
        kept = self._kept.get(sandbox_id)
        if kept is not None and size is None and (found := kept.get(data[2:])) is not None:
            return data[:2] + (found[0] if len(found) == 1 else random.choice(found))
        question = message.parse(data)
        if question is None:
            return message.refusal(data)
        records = self._zone.find(sandbox_id, question)
        if records is None:
            return question
        if size is not None:
            return message.answer(question, random.sample(records, len(records)), size=size)
        limit = question.size or message.SMALLEST
        if len(records) > _TURNS or len(data) > _KEY_MAX:
            return message.answer(question, random.sample(records, len(records)), size=limit)
        turns = [records[turn:] + records[:turn] for turn in range(len(records))] or [records]
        answers = [message.answer(question, each, size=limit)[2:] for each in turns]
        self._keep(sandbox_id, data[2:], answers)
        return data[:2] + random.choice(answers)

    def _keep(self, sandbox_id: str, key: bytes, answers: list[bytes]) -> None:
        kept = self._kept.setdefault(sandbox_id, {})
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = answers
