"""What the words around a value may say about it.

Prose is dropped because it only presents the value. Words that take it back (`Do not use {…}`, `{…}
is wrong`), put it under a condition, call it past, multiply it or go on to another number would be
lost with it, and the value alone would mean something else. So the text is refused where they stand
in the sentence before the value or anywhere behind it. Nobody can list every way to say no: these
are the words that say it in the languages models write most, and what is listed errs towards
refusing. Courtesies (`Let me know if …`) and what stands in front of a label of the answer
(`Action Input:`) say nothing about the value.

A value that is a part of a sentence (`Error in {…}`, `{…} to nobody`), instead of standing behind a
colon or on lines of its own, is what the rest of that sentence makes of it: there only words are
dropped that are known to present a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from signet.core.units import MINOR_UNIT_EXPONENTS

_TOKEN = re.compile(r"[^\W_]\w*(?:[-'’]\w+)*")
_ENDS_SENTENCE = re.compile(r"[.!?](?=\s)|[。！？]|\n[ \t]*\n|\n(?=[ \t]*[^\W\d_][\w ]{0,30}[:：])")
_ANSWER_LABEL = re.compile(
    r"^[^\w\n]{0,20}(?:(?:final )?answer|(?:action|tool|function)[ _](?:input|call)"
    r"|json(?: output)?|output|result|response|arguments|parameters)[*_]{0,2}[ \t]?[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_COURTESY = re.compile(
    r"\b(?:(?:please )?let me know|feel free|hope (?:this|that|it)|if (?:you (?:have|need)"
    r" (?:any\w*|more|further|other|additional|help)|needed|necessary|any)|should you (?:have|need)"
    r"|(?:do not|don['’]t) hesitate|n['’]hésitez pas|no dudes? en|non esitare"
    r"|sag (?:mir )?bescheid|lass (?:es )?mich wissen)\b[^.!?\n{}]*"
    r"|\b(?:no|kein|sin|sem|geen|pas de|нет)\s"
    r"(?:problem\w*|problèmes?|worries|doubt|soucis?|проблем)"
    r"|\b(?:not a problem|without (?:further ado|delay)|not only|do(?:n['’]t| not) worry)\b"
    r"|すみません",
    re.IGNORECASE,
)


def _listed(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_DENYING = _listed(
    # English
    "not no never none neither nor cannot dont cant wont without except excluding unless instead",
    "avoid ignore ignoring disregard discard refuse refused wrong wrongly incorrect incorrectly",
    "invalid mistaken mistake mistakenly erroneous failed fails hypothetical hypothetically",
    "outdated obsolete previously formerly pretend suppose supposing imagine until pending roughly",
    "approximately nobody nothing hardly barely forbid forbids forbidden prohibited malformed bad",
    "superseded otherwise unsure draft redacted strike del",
    # German, Dutch, Scandinavian
    "nicht nie niemals kein keine keinen keinem keiner statt anstatt ohne sondern außer falsch",
    "ungültig niet geen nooit zonder behalve inte ej aldrig ikke aldri utan uten uden istället",
    # Romance
    "ne pas jamais sans aucun aucune sauf nunca jamás ni sin salvo excepto não jamais nem sem",
    "exceto non né senza tranne invece nessun nessuno incorrecto incorrecta errado errada",
    "sbagliato",
    # Slavic
    "nie nigdy bez zamiast nikdy не нет ні никогда ніколи без вместо замість кроме нельзя",
    # Others
    "değil asla gönderme kullanma çağırma yapma لا ليس لم لن بدون غير לא אל אין בלי नहीं मत",
    "jangan tidak bukan tanpa không đừng chưa μη μην δεν όχι ποτέ χωρίς älä älkää ei nem soha",
    "niciodată fără",
)
_CONDITIONS = _listed(
    "if falls wenn sofern si jeśli jeżeli если якщо ако eğer jika nếu αν jos dacă"
)
_TAKING_BACK = _listed(
    "but however although correction sorry oops actually scratch cancel cancelled canceled revoke",
    "revoked rather rejected declined refuses reject draft meant times twice thrice confirm",
    "aber jedoch doch mais cependant pero sino mas porém ma però maar men но однако",
)
# Scripts without spaces between words.
_DENYING_PARTS = re.compile(
    r"(?<![特分区區类類级級性个個])别(?![的名人])|不要|不能|不应|不應|不可|不是|不得|不对|不對|別用"
    r"|勿|没有|沒有|错误|錯誤|如果|而不是|假如|除非|な(?:いで|らない)|しない|ません|ではなく|もし"
    r"|間違|誤り|지\s?마|말고|아니|않|만약|잘못|ไม่|อย่า|ห้าม"
)
_ASKED = "(?:check|see|find out|know|verify|determine|wonder|look|tell|ask|checking|seeing|whether)"
_HARMLESS_IF = re.compile(rf"\b{_ASKED} if\b|\bif possible\b|\bas if\b", re.IGNORECASE)
_ORDERS = re.compile(
    r"(?:\bnot|n['’]t|\bnever)\s(?:\w{1,30}\s){0,2}?(?:use|send|call|run|execute|submit|invoke|pay"
    r"|forward|apply|post|issue|transmit|proceed)\b",
    re.IGNORECASE,
)
_PHRASES = re.compile(
    r"\b(?:rather than|in case|provided (?:that|the)|as long as|used to be"
    r"|would (?:be|have|pay|send)|only (?:if|when|after|once)|(?:every|any)thing but|all but"
    r"|something like|similar to|(?:old|previous|prior|former|earlier)\s(?:\w{1,30}\s)?(?:values?"
    r"|arg\w*|param\w*|calls?|requests?|versions?|amounts?|inputs?|json|payloads?|objects?|answers?"
    r"|attempts?|one)|(?:shall|should|may) i|(?:do you|if you) want|would you like me|want me to"
    r"|au lieu|en lugar|en vez|em vez|in plaats|à moins|a menos|es sei denn)\b",
    re.IGNORECASE,
)
_ENDS_BEFORE = re.compile(
    r"(?:\b(?:was|were|twice|thrice|double|triple|half|times|(?:half|part|most|some|percent) of|or"
    r"|stop|minus|plus|declined|rejected|denied|cancell?ed|no to)|[0-9]\s*[x×]|%\s*of)[\s:*_]*$",
    re.IGNORECASE,
)
_BEGINS_AFTER = re.compile(
    r"\s*+(?:was|were|would|could|should|must|may|might|had|has|used|than)\b"
)
_BEGINS_UNDER_CONDITION = re.compile(
    r"[\W_]*(?:se|si|om|als|hvis|provided|assuming)\b", re.IGNORECASE
)
_PRESENTING = _listed(
    "is are with using use uses call calls calling invoke invoking run running execute executing",
    "send sending pass passing return returns returning submit submitting provide as by via here",
    "json args arguments parameters params payload input output result response answer body data",
    "object follows following this these go sure ok okay done yes certainly ist sind lautet mit",
    "verwende est sont avec es son con com é são è sono met med z с",
)
# A lone word before a value is the name of a function, but not these.
_NO_NAME = _listed("raise throw assert del rem around about approx reject rejected deleted")
_GOING_ON = _listed(
    "now next then immediately is are the a an my your you this that it as requested asked needed",
    "for to and please thanks thank json call calls answer result response arguments parameters",
    "payload tool function object output request done which will work works good",
)
_NEW_SENTENCE = re.compile(r"[ \t]*(?:[.!?;。！？…\n\r]|$)")
_REST_OF_SENTENCE = re.compile(r"[^.!?;。！？\n\r]*")
_CHANGES = re.compile(
    r"\b(?:(?:should|must|needs? to|ought to) (?:be|have|read|say)|make (?:that|it)"
    r"|change (?:that|it)|on second thought|strike that|never mind)\b"
    r"|(?:^|[.!?—–-]\s{1,40}|\n[ \t]{0,40})wait\b(?! (?:for|while|a)\b)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_ORDINAL = re.compile(r"^[ \t]*[0-9]{1,3}[.)](?=\s)", re.MULTILINE)
_MEASURED = re.compile(
    r"[$€£¥₹]\s?([0-9]+(?:[.,][0-9]+)*)"
    r"|(?<![0-9.,])([0-9]++(?:[.,][0-9]++)*+)\s?(?:[%€£¥₹]|([A-Z]{3})\b)"
)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the words around a value do not let it stand alone."""

    detail: str
    before: bool


def objection(
    lead: str, tail: str, value: str, *, begins_inline: bool, ends_inline: bool
) -> Objection | None:
    """What in the words before (`lead`) and behind (`tail`) takes `value` back or changes it.

    `begins_inline` and `ends_inline` tell that nothing but blanks parts those words from the value:
    no fence, no tag, no token. Linear in the length of all three; None when the words only present
    the value.
    """
    detail = _against_before(_COURTESY.sub(" ", lead), value)
    if detail is None and begins_inline and not _presents(lead):
        detail = "the value is a part of the sentence before it"
    if detail is not None:
        return Objection(detail, before=True)
    detail = _against_behind(tail, value)
    if detail is None and ends_inline and not _goes_on_harmlessly(tail):
        detail = "the sentence goes on behind the value"
    return None if detail is None else Objection(detail, before=False)


def _presents(lead: str) -> bool:
    """Whether the words on the value's own line lead to it and are no part of what it says."""
    line = lead[lead.rfind("\n") + 1 :].rstrip()
    if not line or not (line[-1].isalnum() or line[-1] in "_,"):
        return True  # a colon, the end of a sentence, the mark of a list
    words = _words(line)
    if not words or words[-1] in _PRESENTING:
        return bool(words)
    is_alone = len(words) == 1 and not lead[: lead.rfind("\n") + 1].strip()
    return is_alone and words[0] not in _NO_NAME


def _goes_on_harmlessly(tail: str) -> bool:
    """Whether the value ends its sentence, or the rest of it is known to say nothing."""
    if _NEW_SENTENCE.match(tail) is not None:
        return True
    rest = _REST_OF_SENTENCE.match(tail)
    words = rest.group().lstrip() if rest else ""
    return words[:1].isupper() or all(word in _GOING_ON for word in _words(words))


def _against_before(lead: str, value: str) -> str | None:
    labels = list(_ANSWER_LABEL.finditer(lead))
    if labels:
        lead = lead[labels[-1].start() :]
    if _ORDERS.search(lead) is not None:
        return "the words before the value forbid it"
    sentence = _last_sentence(lead)
    if _BEGINS_UNDER_CONDITION.match(sentence) is not None:
        return "the words before the value put it under a condition"
    if _ENDS_BEFORE.search(sentence, max(0, len(sentence) - 100)) is not None:
        return "the words before the value change what it means"
    if denies(sentence):
        return "the words before the value deny it or put it under a condition"
    amounts = {
        money or number
        for money, number, unit in _MEASURED.findall(sentence)
        if not unit or unit in MINOR_UNIT_EXPONENTS
    }
    if amounts and not amounts <= set(_NUMBER.findall(value)):
        return "an amount stands in the words before the value, and not in it"
    return None


def _against_behind(tail: str, value: str) -> str | None:
    if _ORDERS.search(tail) is not None:
        return "the words behind the value forbid it"
    words = _COURTESY.sub(" ", tail)
    if denies(words) or _BEGINS_AFTER.match(words) or _CHANGES.search(words):
        return "the words behind the value take it back or put it under a condition"
    if any(word in _TAKING_BACK for word in _words(words)):
        return "the words behind the value take it back"
    numbers = set(_NUMBER.findall(_ORDINAL.sub(" ", words)))
    if numbers and not numbers <= set(_NUMBER.findall(value)):
        return "a number stands behind the value, and not in it"
    return None


def _last_sentence(lead: str) -> str:
    """The sentence that leads to the value, which may end in a colon, or in a line of its own."""
    lead = lead.rstrip().rstrip(".!?。！？ \n\t")
    begin = 0
    for end in _ENDS_SENTENCE.finditer(lead):
        begin = end.end()
    return lead[begin:]


def denies(words: str) -> bool:
    """Whether a word of `words`, which may be the name of a tag, denies or sets a condition."""
    said = _words(_HARMLESS_IF.sub(" ", words))
    return (
        any(
            word in _DENYING or word in _CONDITIONS or word.endswith(("n't", "n’t"))
            for word in said
        )
        or any(
            word.startswith(("n'", "n’")) or (word.startswith("ne") and word.endswith("jte"))
            for word in said
        )
        or _PHRASES.search(words) is not None
        or _DENYING_PARTS.search(words) is not None
    )


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())
