"""What may stand around the one value of a text: fences, tags, template tokens, a name, prose.

A wrapper is dropped only when it says nothing that could belong to the value. Prose that holds a
scalar in the place of a value (`currency: EUR`, a lone `5`, a lone `USD`,
`<parameter name="y">5</parameter>`) is refused, because dropping it would lose a part of what was
meant. So are words that deny the value they stand before.
"""

from __future__ import annotations

import re
from typing import Literal

from signet.core.prose import denies, objection
from signet.core.tolerant import (
    DOUBLE_MARKS,
    LITERALS,
    QUOTES,
    ROOT,
    SINGLE_MARKS,
    TEMPLATE_TOKEN,
    Edit,
    EditKind,
    Refusal,
)
from signet.core.units import MINOR_UNIT_EXPONENTS

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,127}+"
_CANDIDATE = re.compile(
    rf"(?P<call>\[\s*+{_NAME}(?:\.{_NAME}){{0,8}}+\((?=\s*+(?:{_NAME}\s*+=(?!=)|\)))"
    rf"|(?<![\w.]){_NAME}(?:\.{_NAME}){{0,8}}+\((?=\s*+{_NAME}\s*+=(?!=)))"
    r"|\{"
    r"|\[(?=\s*+(?:[\"'“”„‘’{\[\]]|-?[0-9]|(?:true|false|null|True|False|None|TRUE|FALSE|NULL|Null)\b|//|/\*|#))"
)
_EMPTY_CALL = re.compile(rf"\s*+{_NAME}(?:\.{_NAME}){{0,8}}+\((?=\s*+\)\s*+$)")

_FENCE = re.compile(r"(?:```|~~~)[A-Za-z0-9_+-]*|`")
_TAG = re.compile(r"</?[A-Za-z_][\w:.-]*+(?:[ =][^<>{}\[\]]*+)?/?>|<\|?/?[A-Za-z_]*\|?$")
_TAG_NAME = re.compile(r"</?([A-Za-z_][\w:.-]*+)")
_ELEMENT = re.compile(r"<([A-Za-z_][\w:.-]*+)(?:[ =][^<>]*+)?>([^<>]*+)</([A-Za-z_][\w:.-]*+)>")
_THOUGHTS = ("think", "thinking", "thought", "reasoning", "analysis", "scratchpad", "reflection")
_NAME_ELEMENTS = frozenset(
    {"name", "tool_name", "function_name", "tool", "function", "recipient", "action"}
)
_CALL_NUMBER = re.compile(r"\bfunctions\.[\w.-]+:[0-9]+")
_QUOTED_NAME = re.compile(r"[\"'”’]\s*+(?::|=|：)")
_MARKUP = re.compile(r"\*\*|__|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)")
_PAIR = re.compile(
    r"(?<![\w-])[^\W\d][\w-]*+\s*+(?:=>|[:=：])\s*+"
    r"(?:[\"'“‘]|[-+$€£¥]?\.?[0-9]|(?:true|false|null|True|False|None)\b)"
)
_LINE_PAIR = re.compile(
    r"^[\s,;*>-]*+([^\W\d][\w-]*+)[ \t]*+(?:=>|[:=：])[ \t]*+([^\s,;]++)[ \t]*+[,;]?[ \t]*+\r?$",
    re.MULTILINE,
)
_NAMING_LABELS = frozenset(
    {"action", "tool", "name", "function", "tool_name", "function_name", "call", "to", "recipient"}
)
_VALUE_LABELS = frozenset(
    {
        *("json", "output", "answer", "result", "response", "final", "data", "payload", "object"),
        *("arguments", "args", "parameters", "params", "kwargs", "input", "inputs", "request"),
        *("action_input", "tool_input", "tool_call", "function_call", "call", "tool", "body"),
        *("value", "action", "function", "return", "returns", "reply", "assistant", "here"),
        *("ai", "bot", "agent", "model", "results", "fixed", "corrected", "command", "code"),
        *("calling", "using", "executing", "invoking", "tool_use", "toolcall", "functioncall"),
        *("tool_calls", "function_calls"),
        *("sure", "ok", "okay", "certainly", "done", "voilà", "voici", "hier", "example"),
    }
)
_LAST_LABEL = re.compile(r"(?:^|\n)[ \t]*+([^\W\d][\w-]*+)[ \t]*+:\s*+$")
_PARTED_BEFORE = re.compile(r"(?:[>\]]|(?:```|~~~)[A-Za-z0-9_+-]{0,40})[ \t]{0,40}$")
_PARTED_BEHIND = re.compile(r"[ \t]*+(?:<|```|~~~|\[/|//|/\*|[\r\n]|$)")
_QUOTED = re.compile(r"\"[^\"\n]*+\"|'[^'\n]*+'|“[^“”\n]*+”|‘[^‘’\n]*+’")
_NUMBERS = re.compile(r"[-+$€£¥]?[0-9][0-9.,]*+%?")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+|[$€£¥₹₽₩₿¢%‰]")
_UNITS = frozenset(
    {
        *(
            "percent",
            "permille",
            "dozen",
            "hundred",
            "thousand",
            "million",
            "billion",
            "times",
            "k",
        ),
        *("euro", "euros", "dollar", "dollars", "cent", "cents", "pound", "pounds", "pence", "yen"),
        *("francs", "franc", "rupees", "yuan"),
    }
)
_SIGNS = frozenset("$€£¥₹₽₩₿¢%‰")
_CALL_BEFORE = re.compile(rf"(?:\[\s*+)?(?<![\w.])(?:{_NAME}(?:\.{_NAME}){{0,8}}+)?\($")
_NAME_ONLY = re.compile(rf"\s*+[>#*]*\s*+{_NAME}(?:[.\-:/]{_NAME}){{0,8}}+\s*+")
_TORN = frozenset("\"'“”„‟‘’‚‛\\")
_ESCAPED_MARK = re.compile(r"\\[\"']")
_CONDITION = re.compile(r"(?:if|or|and|else|unless|for|in|not)\b")
_URL = re.compile(r"\bhttps?://[^\s<>{}\[\]]++")
_COMPARISON = ("==", "!=", "+=", "-=", "|=", "<=", ">=")
_ADJOINING = frozenset("$@%!~+-*&\\^./?=|") - {"="}
_OPERATORS = frozenset("+-*/%&|<>=?^~@.:$#")


Shape = Literal["object", "array", "call"]


def around(text: str, start: int, end: int, shape: Shape) -> tuple[list[Edit], list[Edit], bool]:
    """What to drop before `start` and after `end`, and whether quotation marks stood around.

    Raises `Refusal` when something there may belong to the value.
    """
    is_object = shape == "object"
    if not text[:start].strip() and not text[end:].strip():
        return [], [], False
    lead, tail = _without_thoughts(text[:start]), text[end:]
    kinds: set[EditKind] = {"tag"} if len(lead) < start else set()
    lead, tail, quoted = _unquoted(lead, tail)
    if quoted:
        kinds.add("wrapper")
    lead, tail = _uncalled(lead, tail, is_object, start, kinds)
    _refuse_adjoining(lead, is_object, start)
    _refuse_continuation(tail, end)
    _refuse_unclosed(lead, tail, start, end)
    _refuse_torn(lead, tail, start, end)
    if shape == "array":
        _refuse_inline(lead, tail, start)
    before, lead_kinds = _said(lead, 0, before=True)
    behind, tail_kinds = _said(tail, end, before=False)
    objected = objection(
        before,
        behind,
        text[start:end],
        begins_inline=not _PARTED_BEFORE.search(text, max(0, start - 80), start),
        ends_inline=not _PARTED_BEHIND.match(text, end),
    )
    if objected is not None:
        raise Refusal("unclear_wrapper", start if objected.before else end, objected.detail)
    head = _edit(text[:start], 0, lead_kinds | kinds)
    foot = _edit(text[end:], end, tail_kinds | kinds)
    return head, foot, quoted


_FURTHEST_FIRST: tuple[EditKind, ...] = (
    *("call", "prose", "tag", "fence", "template_token", "wrapper"),
)


def _edit(dropped: str, offset: int, kinds: set[EditKind]) -> list[Edit]:
    if not dropped.strip():
        return []
    found: list[EditKind] = [kind for kind in _FURTHEST_FIRST if kind in kinds]
    kind = found[0] if found else "whitespace"
    return [Edit(kind=kind, offset=offset, length=len(dropped), replacement="", place=ROOT)]


def _unquoted(lead: str, tail: str) -> tuple[str, str, bool]:
    """Take a pair of quotation marks off, with Python's prefix of one letter."""
    opener, closer = lead.rstrip()[-1:], tail.lstrip()[:1]
    if not opener or opener not in QUOTES or not closer:
        return lead, tail, False
    family = DOUBLE_MARKS if opener in DOUBLE_MARKS else SINGLE_MARKS
    if closer != opener and not (opener in family and closer in family):
        return lead, tail, False
    if opener in "\"'" and lead.count(opener) % 2 == 0:
        return lead, tail, False  # it closes something else
    lead, tail = lead.rstrip()[:-1], tail.lstrip()[1:]
    for triple in ('""', "''"):
        if lead.endswith(triple) and tail.startswith(triple) and triple[0] == opener:
            lead, tail = lead[:-2], tail[2:]
    if lead[-1:] in ("b", "r", "u") and not lead[-2:-1].isalnum():
        lead = lead[:-1]
    return lead, tail, True


def _uncalled(
    lead: str, tail: str, is_object: bool, start: int, kinds: set[EditKind]
) -> tuple[str, str]:
    """Take `name(` … `)`, or plain round brackets, off an object."""
    opening = lead.rstrip()
    if not opening.endswith("("):
        return lead, tail
    call = _CALL_BEFORE.search(opening, max(0, len(opening) - 1200))
    closing = tail.lstrip()
    if call is None or not is_object or not closing.startswith(")"):
        raise Refusal("unclear_wrapper", start, "the value is part of an expression")
    closing = closing[1:]
    if call.group().startswith("["):
        if not closing.lstrip().startswith("]"):
            raise Refusal("several_values", start, "there is more than one call")
        closing = closing.lstrip()[1:]
    kinds.add("call" if len(call.group()) > 1 else "wrapper")
    return opening[: call.start()], closing


def _refuse_adjoining(lead: str, is_object: bool, start: int) -> None:
    """Refuse a value that an operator, or for an array a name, stands directly in front of."""
    last = lead[-1:]
    if last and (last in _ADJOINING or last.isdigit()):
        raise Refusal("unclear_wrapper", start, f"{last!r} stands directly before the value")
    if last and not is_object and (last.isalnum() or last in "_)"):
        raise Refusal("unclear_wrapper", start, "the brackets may be an index")


def _refuse_torn(lead: str, tail: str, start: int, end: int) -> None:
    """Refuse a mark directly beside the value that is half of something else."""
    if lead.rstrip()[-1:] in _TORN or lead.strip() == ",":
        raise Refusal("unclear_wrapper", start, "a stray mark stands before the value")
    if tail.lstrip()[:1] in _TORN:
        raise Refusal("unclear_wrapper", end, "a stray mark stands after the value")
    if _ESCAPED_MARK.search(lead) or _ESCAPED_MARK.search(tail):
        raise Refusal("unclear_wrapper", start, "escapes stand outside of the value")


def _refuse_inline(lead: str, tail: str, start: int) -> None:
    """Refuse an array in the middle of a sentence: `[1, 2]` may be an interval or a citation."""
    before = lead.rstrip(" \t")[-1:]
    after = tail.lstrip(" \t")[:1]
    if (before and before not in "\n:：=`>]\ufeff") or (after and after not in "\r\n`<;~"):
        raise Refusal("unclear_wrapper", start, "an array inside a sentence may be a part of it")


def _refuse_continuation(tail: str, end: int) -> None:
    """Refuse a tail that goes on with the value instead of ending it."""
    same_line = tail.split("\n", 1)[0].lstrip()
    if TEMPLATE_TOKEN.match(same_line) or _TAG.match(same_line):
        return
    if same_line.startswith(("//", "/*")) or re.match(r"\.(?:\s|$)", same_line):
        return
    if (same_line[:1] in _OPERATORS and same_line[:1]) or _CONDITION.match(same_line):
        raise Refusal("unclear_wrapper", end, "the text goes on after the value")
    if same_line[:1] == "," and re.match(r",\s*+(?:[\"'“‘0-9{\[-]|$)", tail.lstrip()):
        raise Refusal("several_values", end, "another item follows the value")
    if tail[:1].isalnum() or tail[:1] in ("_", "(", ")", "["):
        raise Refusal("unclear_wrapper", end, "the text goes on after the value")


def _refuse_unclosed(lead: str, tail: str, start: int, end: int) -> None:
    if lead.count("(") > lead.count(")"):
        raise Refusal("unclear_wrapper", start, "the value is inside round brackets")
    last_line = lead[lead.rfind("\n") + 1 :].strip()
    if last_line.startswith(("//", "#", "--", ";")) or lead.count("/*") > lead.count("*/"):
        raise Refusal("unclear_wrapper", start, "the value may be commented out")
    operator = last_line[1:] and last_line[-1] in "+*/%&|^~" and last_line[-2:] not in ("**", "*/")
    if operator or last_line.endswith(_COMPARISON):
        raise Refusal("unclear_wrapper", start, "the value is part of an expression")
    if "}" in lead or lead.count("]") > lead.count("["):
        raise Refusal("unbalanced", start, "a bracket closes before the value")
    if _CANDIDATE.search(tail) is not None:
        raise Refusal("several_values", end, "there is more than one value")
    if "}" in tail or tail.count("]") > tail.count("["):
        raise Refusal("unbalanced", end, "a bracket closes after the value")
    before = lead.rstrip()
    if before.endswith(",") and before[-2:-1] and (before[-2] in QUOTES or before[-2].isdigit()):
        raise Refusal("several_values", start, "an item stands before the value")


def _said(part: str, offset: int, *, before: bool) -> tuple[str, set[EditKind]]:
    """The words of `part` and the kinds of wrappers in it; `Refusal` if it says more than words."""
    kinds: set[EditKind] = set()
    if not part.strip():
        return "", kinds
    words = _replace(_CALL_NUMBER, _URL.sub(" url ", part), kinds, "template_token")
    words = _replace(TEMPLATE_TOKEN, words, kinds, "template_token")
    _refuse_elements(words, offset)
    if denies(" ".join(_TAG_NAME.findall(words))):
        raise Refusal("unclear_wrapper", offset, "the tag around the value denies it")
    words = _replace(_TAG, words, kinds, "tag")
    words = _replace(_FENCE, words, kinds, "fence")
    words = _MARKUP.sub("", words)
    if words.strip().strip(";\ufeff\u200b \n").strip():
        kinds.add("prose")
        _refuse_scalars(words, offset)
        _refuse_unit(words, offset)
        if before and _NAME_ONLY.fullmatch(words):
            kinds.add("call")
        label = _LAST_LABEL.search(words, max(0, len(words) - 400)) if before else None
        if label is not None and label.group(1).lower() not in _VALUE_LABELS:
            raise Refusal("scalar_outside", offset, "the value may be one member of several")
    return words, kinds


def _replace(pattern: re.Pattern[str], text: str, kinds: set[EditKind], kind: EditKind) -> str:
    replaced, count = pattern.subn(" ", text)
    if count:
        kinds.add(kind)
    return replaced


def candidate(text: str) -> re.Match[str] | None:
    """Where the value may begin. What a model thought aloud beforehand is not its answer."""
    begin = 0
    opening = text.lstrip()
    for name in _THOUGHTS:
        if opening.startswith(f"<{name}>"):
            begin = max(0, text.find(f"</{name}>"))
    return _CANDIDATE.search(text, begin) or _EMPTY_CALL.match(text)


def _without_thoughts(part: str) -> str:
    """Take whole elements of reasoning out: they are about the value and no part of it."""
    for name in _THOUGHTS:
        opening, closing = f"<{name}>", f"</{name}>"
        at = part.find(opening)
        while at >= 0 and (close := part.find(closing, at)) >= 0:
            part = part[:at] + part[close + len(closing) :]
            at = part.find(opening, at)
    return part


def _refuse_elements(words: str, offset: int) -> None:
    """Refuse elements with content of their own: that content may be an argument."""
    for element in _ELEMENT.finditer(words):
        opened, content, closed = element.groups()
        if opened != closed or not content.strip():
            continue
        if opened.lower() not in _NAME_ELEMENTS:
            raise Refusal("scalar_outside", offset + element.start(), f"<{opened}> holds a text")


def _refuse_unit(words: str, offset: int) -> None:
    """Refuse a unit that stands alone beside the value: `{"amount": 100} USD`."""
    found = _WORD.findall(words, 0, 64)
    if len(found) != 1 or len(words.strip()) > 16:
        return
    (word,) = found
    if word in MINOR_UNIT_EXPONENTS or word in _SIGNS or word.lower() in _UNITS:
        raise Refusal("scalar_outside", offset, "a unit stands outside")


def _refuse_scalars(words: str, offset: int) -> None:
    """Refuse prose that holds a scalar where a value could stand."""
    pair = _QUOTED_NAME.search(words) or _PAIR.search(words)
    if pair is not None:
        raise Refusal("scalar_outside", offset, "a named value stands outside")
    for line in _LINE_PAIR.finditer(words):
        if line.group(1).lower() not in _NAMING_LABELS:
            raise Refusal("scalar_outside", offset, "a named value stands outside")
    rest, scalars = _QUOTED.subn(" ", words)
    rest, numbers = _NUMBERS.subn(" ", rest)
    for literal in (*LITERALS, "NaN", "Infinity"):
        found = rest
        rest = re.sub(rf"\b{literal}\b", " ", rest)
        scalars += found != rest
    if (scalars or numbers) and _LETTER.search(rest) is None:
        raise Refusal("several_values", offset, "a lone scalar stands outside")
