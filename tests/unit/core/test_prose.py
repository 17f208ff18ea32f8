"""Which words may stand around a value without changing what it means."""

from __future__ import annotations

import time

import pytest

from signet.core.invariants import violations
from signet.core.prose import objection
from signet.core.repair import Repaired, Unrepairable, repair

VALUE = '{"amount": 5}'


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "Sure! Here is the JSON you asked for:\n\n{}",
        "I don't have live data. Let me call the tool:\n{}",
        "Thought: I should not guess the city.\nAction: pay\nAction Input: {}\nObservation:",
        "I will call the tool with {} now.",
        "Let me see if I can pay that: {}",
        "I'll transfer 5 EUR: {}",
        "I found 3 accounts and picked the first:\n{}",
        "I'll cancel the order with this call: {}",
        "do_not_disturb\n{}",
        "set-not-before {}",
        "<think>Do not pay twice.</think>{}",
        "{}\n\nLet me know if this is not what you wanted.",
        "{}\n\nIf you need anything else, don't hesitate to ask!",
        "{}\n\n1. It pays.\n2. It is final.",
        "{}\nThis should work. The amount is 5.",
        "No problem! {}",
        "Here you go {}",
        "{}<|im_end|>assistant",
        "以下是参数：{}",
    ],
)
def test_words_that_present_a_value_are_dropped(around: str) -> None:
    """What only introduces, explains or says goodbye changes nothing."""
    text = around.replace("{}", VALUE)
    result = repair(text)
    assert isinstance(result, Repaired), result
    assert result.text == VALUE
    assert violations(text, VALUE) == ()


@pytest.mark.parametrize(
    "around",
    [
        "Do not use {}",
        "DO NOT run this:\n```json\n{}\n```",
        "Do *not* send this: {}",
        "Do _not_ send this: {}",
        "You shouldn’t send {}",
        "Never send what follows. It is a draft.\n{}",
        "Instead of {}",
        "Nobody sends {}",
        "The old value was {}",
        "The previous arguments were:\n{}",
        "If the user agrees, send {}",
        "Only after approval: {}",
        "Should I send this?\n{}",
        "twice {}",
        "A 10% discount on {}",
        "Add 3 EUR to {}",
        "Error in {}",
        "Neposílejte {}",
        "Nicht senden: {}",
        "Si Ana acepta: {}",
        "N'utilisez pas {}",
        "Не отправляйте: {}",
        "不要发送：{}",
        "送信しないで: {}",
        "DRAFT {}",
        "raise ValueError({})",
        "<wrong>{}</wrong>",
        "<del>{}</del>",
        "{} is wrong",
        "{} to nobody",
        "{} (times two)",
        "{} was sent before.",
        "{}\nWait, it must be six.",
        "{}\n\nDo not send this.",
        "{}\n\nActually, make that 6.",
        "{}\n\nThe sum is 6.",
        "{}\n\nIf Ann agrees.",
        "{}\n\nShall I proceed?",
        "{} を送らないで",
    ],
)
def test_words_that_take_a_value_back_refuse_it(around: str) -> None:
    """What is denied, conditional, past, multiplied or corrected is not what the value says alone.

    Neither by rule nor by a model, which cannot prove that it understood the words.
    """
    text = around.replace("{}", VALUE)
    assert isinstance(repair(text), Unrepairable)
    assert [fault.code for fault in violations(text, VALUE)] == ["semantic_violation"]


def test_the_objection_says_on_which_side_the_words_stand() -> None:
    """A refusal can lead to the place."""
    before = objection("Not ", "", VALUE, begins_inline=True, ends_inline=False)
    behind = objection("", " is wrong", VALUE, begins_inline=False, ends_inline=True)
    assert before is not None
    assert before.before
    assert behind is not None
    assert not behind.before
    assert objection("", "", VALUE, begins_inline=True, ends_inline=True) is None


@pytest.mark.parametrize("unit", ["#\n", "1,", "\n \n", "not ", "n't ", "- ", "A:\n", "$1", "a-"])
def test_long_prose_costs_linear_time(unit: str) -> None:
    """200 kB of one piece end; quadratic work here would take minutes."""
    words = unit * (200_000 // len(unit))
    begin = time.process_time()
    objection(words, words, words, begins_inline=True, ends_inline=True)
    assert time.process_time() - begin < 20
