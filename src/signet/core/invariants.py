"""What every repair must leave as it was, whoever made it.

Held against a heuristic repair and against a model's answer alike: every scalar of the original
text reappears unchanged, under the name and in the place it had, and none is added. The original is
read by a lexer of its own, so a fault of the repairing reader does not hide here too.

The proof is an alignment. Members of an object may change their order (structured output is written
in the schema's order); apart from that the names and scalars of the repaired text must be, one for
one, those of the original. Where the original's brackets are in order they must agree as well.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from signet.core.errors import Fault
from signet.core.expected import Expected
from signet.core.tolerant import Refusal
from signet.core.wrappers import Shape, around, candidate
from signet.receipts.canonical import MAX_DEPTH, Json, parse, pointer
from signet.receipts.errors import ReceiptError

Subject = Literal["amount", "currency", "identifier", "date", "required", "value"]

_VOCABULARY: dict[Subject, str] = {
    "amount": "amount amt price total subtotal sum cost fee tax vat balance rate discount quantity "
    "qty charge payment limit salary fare minor units count",
    "currency": "currency ccy curr",
    "identifier": "id ids uuid guid iban bic swift account acct sku ref reference number no code "
    "key email phone isin lei ssn vin recipient payee creditor debtor beneficiary address",
    "date": "date datetime time timestamp day month year deadline due dob birthday at until "
    "expires expiry start end",
}
_SUBJECT_WORDS: dict[str, Subject] = {
    word: subject for subject, words in _VOCABULARY.items() for word in words.split()
}
_SUBJECT_FORMATS: dict[str, Subject] = {
    **dict.fromkeys(("date", "date-time", "time", "duration"), "date"),
    **dict.fromkeys(("uuid", "email", "uri", "iri", "hostname", "ipv4", "ipv6"), "identifier"),
}
_ANNOTATION = "x-signet-subject"
_ANNOTATED: dict[str, Subject] = {str(subject): subject for subject in _VOCABULARY}

_QUOTE_PAIRS = {
    '"': '"',
    "'": "'",
    **dict.fromkeys("“”„‟＂", "“”„‟＂"),
    **dict.fromkeys("‘‚‛’", "‘’‚‛"),
}
_SKIPPED = re.compile(
    r"[\s\u200b\u2060\ufeff]+|[,;，；]"
    r"|<\|[^|<>\n]{1,64}\|>|<\uff5c[^\uff5c<>\n]{1,64}\uff5c>"
)
_SKIPPED_BEHIND = re.compile(
    rf"{_SKIPPED.pattern}|</?[A-Za-z_][^<>\n]{{0,200}}>|```[A-Za-z0-9_+-]*|~~~"
)
_LINE_COMMENT = re.compile(r"(?://|#)[^\n\r\u2028\u2029]*")
_DIVISION = re.compile(r"//\s*[0-9(.+-]")
_BARE = re.compile(r"[^\s,:;{}\[\]\"'=“”„‟＂‘’‚‛，：；\u200b\u2060\ufeff<]+|<")
_NAMES_NEXT = re.compile(r"(?:\s|<\|[^|<>\n]{1,64}\|>)*+(?:[:：]|=(?!=))")
_SEPARATOR = re.compile(r"=>|[:：=]")
_LIST_END = re.compile(r"\s*+\]")
_AFTER_VALUE = re.compile(r"</[A-Za-z_]|```|~~~")
_DELIMITED = re.compile(r"\s*+(?:[,:;}\])，：；]|$)")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"'\\/bfnrt]))")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPED_START = re.compile(r"[\[{](?:\s|\\[nrt])*+\\[\"']")
_STRUCTURE_INSIDE = re.compile(r"[\"']\s*+[,:}\]]|[{\[,:]\s*+[\"']")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SPELLINGS = {
    "true": ("true", "True", "TRUE"),
    "false": ("false", "False", "FALSE"),
    "null": ("null", "None", "NULL", "Null"),
}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_CLOSED_BY = {"{": "}", "[": "]"}
_MAX_LAYERS = 4


class _Number(str):
    """A number as its text, so that `1.50` is not `1.5`."""

    __slots__ = ()


_Tree: TypeAlias = "bool | str | list[_Tree] | dict[str, _Tree] | None"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["open", "close", "quoted", "bare", "cut"]
    text: str
    start: int
    end: int
    is_name: bool = False


class _Differs(Exception):
    """The alignment ends here: `path` leads to the place in the repaired text."""

    def __init__(
        self, path: tuple[str | int, ...], detail: str, expected: str | None = None
    ) -> None:
        super().__init__(detail)
        self.path = path
        self.detail = detail
        self.expected = expected


def violations(
    original: str, repaired: str, *, schema: Json | None = None, limit: int = 20
) -> tuple[Fault, ...]:
    """What `repaired` (strict JSON) says that `original` does not, or the reverse; () is good.

    Codes are `semantic_violation` and, where the subject is known from the member's name or the
    schema (`format`, `required`, `x-signet-subject`), `semantic_violation_amount`, `…_currency`,
    `…_identifier`, `…_date`, `…_required`. Pointers lead into `repaired`; a dropped member's
    pointer is where it would have been, as far as that is known.
    """
    try:
        parse(repaired)
    except ReceiptError as error:
        detail = f"the repaired text is not exact JSON: {error.detail}"
        return (Fault(pointer="", code="semantic_violation", detail=detail),)
    tree: _Tree = json.loads(repaired, parse_int=_Number, parse_float=_Number)
    expected = Expected.at_root(schema)
    try:
        tokens = _tokens(original, tree)
    except Refusal as refusal:
        detail = f"what stands around the value is lost: {refusal.detail}"
        return (Fault(pointer="", code="semantic_violation", detail=detail),)
    try:
        _Alignment(tokens).align(tree, expected)
    except _Differs as difference:
        return _explained(tokens, tree, expected, difference)[:limit]
    return ()


# -- reading the original -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tokens:
    text: str
    items: list[_Token]
    missing: int = 0  # opening brackets without a closing one, or the reverse
    in_order: bool = True  # no bracket closes another kind, or stands too many in the middle


def _tokens(original: str, tree: _Tree) -> _Tokens:
    if not isinstance(tree, dict | list):
        return _Tokens(original, list(_lexed(original, 0, len(original), is_call=False)))
    text = _decoded_text(original)
    start, end, is_call = _region(text)
    _refuse_outside(text, end)
    return _balanced(text, list(_lexed(text, start, end, is_call=is_call)))


def _decoded_text(text: str) -> str:
    """Take off the layers of JSON strings around a text that was encoded more than once."""
    for _ in range(_MAX_LAYERS):
        stripped = text.strip()
        inner: object = None
        if stripped[:1] == '"':
            try:
                inner = json.loads(stripped)
            except ValueError:
                inner = None
        if isinstance(inner, str):
            text = inner
            continue
        found = candidate(text)
        if found is None or not _ESCAPED_START.match(text, found.start()):
            break
        end = max(text.rfind("}"), text.rfind("]")) + 1
        text = text[: found.start()] + _unescaped(text[found.start() : end]) + text[end:]
    return text


def _region(text: str) -> tuple[int, int, bool]:
    """Where the value can be: from its first bracket to the last closing one, else to the end."""
    found = candidate(text)
    if found is None:
        return 0, len(text), False
    is_call = found.group().endswith("(")
    start = found.end() if is_call else found.start()
    closers = ")" if is_call else "}]"
    limit = len(text)
    if not is_call and text[:start].rstrip().endswith("("):
        limit = max(text.rfind(")"), start)
    last = max(text.rfind(closer, 0, limit) for closer in closers)
    after = _AFTER_VALUE.search(text, max(last, start))
    limit = min(limit, after.start()) if after else limit
    if last < start:
        return start, len(text), is_call
    rest = _SKIPPED_BEHIND.sub("", text[last + 1 : limit])
    depth = sum(
        (token.kind == "open") - (token.kind == "close")
        for token in _lexed(text, start, last + 1, is_call=is_call)
    )
    return start, last + 1 if depth <= 0 or not rest else limit, is_call


def _refuse_outside(text: str, end: int) -> None:
    """Raise `Refusal` if what stands around the value takes it back, or is a part of it."""
    found = candidate(text)
    if found is None:
        return
    shape: Shape = "object" if text[found.start()] == "{" else "array"
    if found.group().endswith("("):
        shape = "call"
        if found.group().startswith("["):
            closed = _LIST_END.match(text, end)
            end = closed.end() if closed else end
    around(text, found.start(), end, shape)


def _lexed(text: str, start: int, end: int, *, is_call: bool) -> Iterator[_Token]:
    at = start
    if is_call:
        yield _Token("open", "{", start, start)  # the round bracket of the call
    number_before = named = False
    while at < end:
        skipped = _SKIPPED.match(text, at, end)
        if skipped is not None:
            at = skipped.end()
            continue
        found = text[at]
        after = _after_comment(text, at, end) if found in "/#" else at
        if after > at and not (number_before and _DIVISION.match(text, at, end)):
            at = after
            continue
        separator = _SEPARATOR.match(text, at, end) if named or found in ":：" else None
        named = False
        if separator is not None:
            at = separator.end()
            continue
        token = _token(text, at, end, is_call=is_call)
        number_before = token.kind == "bare" and token.text[:1].isdigit()
        named = token.is_name
        yield token
        at = token.end


def _after_comment(text: str, at: int, end: int) -> int:
    """Where the comment at `at` ends; an unclosed one goes to the end, so that it hides all."""
    if text.startswith("/*", at):
        close = text.find("*/", at + 2, end)
        return end if close < 0 else close + 2
    line = _LINE_COMMENT.match(text, at, end)
    return line.end() if line else at


def _token(text: str, at: int, end: int, *, is_call: bool) -> _Token:
    found = text[at]
    if found in "{[":
        return _Token("open", found, at, at + 1)
    if found in "}]":
        return _Token("close", found, at, at + 1)
    if found in _QUOTE_PAIRS:
        return _quoted(text, at, end, _QUOTE_PAIRS[found])
    bare = _BARE.match(text, at, end)
    stop = bare.end() if bare else at + 1
    word = text[at:stop]
    if is_call and word.rstrip(")") != word and "(" not in word:
        closing = len(word) - len(word.rstrip(")"))
        if closing == len(word):
            return _Token("close", "}", at, stop)
        stop -= closing
        word = text[at:stop]
    is_name = _NAMES_NEXT.match(text, stop, end) is not None
    return _Token("bare", word, at, stop, is_name)


def _quoted(text: str, at: int, end: int, closers: str) -> _Token:
    stop = at + 1
    while stop < end and text[stop] not in closers:
        stop += 2 if text[stop] == "\\" else 1
    if stop >= end:
        return _Token("cut", text[at + 1 : end], at, end)
    is_name = _NAMES_NEXT.match(text, stop + 1, end) is not None
    return _Token("quoted", _unescaped(text[at + 1 : stop]), at, stop + 1, is_name)


def _unescaped(content: str) -> str:
    """`content` with JSON's escapes resolved; a backslash before anything else stays."""
    if "\\" not in content:
        return content
    plain = _ESCAPE.sub(
        lambda escape: chr(int(escape[1], 16)) if escape[1] else _ESCAPED.get(escape[2], escape[2]),
        content,
    )
    return _SURROGATES.sub(
        lambda pair: pair.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le"), plain
    )


def _balanced(text: str, items: list[_Token]) -> _Tokens:
    """Judge the brackets; those missing at the very end are added, surplus ones left out."""
    open_now: list[str] = []
    for index, token in enumerate(items):
        if token.kind == "open":
            open_now.append(token.text)
        elif token.kind == "close":
            if open_now and _CLOSED_BY[open_now[-1]] == token.text:
                open_now.pop()
            elif not open_now and all(rest.kind == "close" for rest in items[index:]):
                return _Tokens(text, items[:index])
            else:
                missing = abs(sum((t.kind == "open") - (t.kind == "close") for t in items))
                return _Tokens(text, _with_cut(items), max(1, missing), in_order=False)
    if open_now or len(items) > 1:
        items = _with_cut(items)
    if not any(token.kind in ("open", "close") for token in items):
        return _Tokens(text, items, MAX_DEPTH, in_order=False)  # all of them are missing
    added = [_Token("close", _CLOSED_BY[opened], len(text), len(text)) for opened in open_now[::-1]]
    return _Tokens(text, items + added, len(open_now))


def _with_cut(items: list[_Token]) -> list[_Token]:
    """Mark a bare scalar at the very end: more of it may have been cut off."""
    last = items[-1] if items else None
    if last is None or last.kind != "bare" or any(last.text in s for s in _SPELLINGS.values()):
        return items
    return [*items[:-1], _Token("cut", last.text, last.start, last.end, last.is_name)]


# -- the alignment --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Alignment:
    """Walks the repaired value along the original's tokens, in linear time."""

    source: _Tokens
    _items: list[_Token] = field(init=False)
    _at: int = 0
    _last_path: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        keep_brackets = self.source.in_order
        self._items = [
            token
            for token in self.source.items
            if keep_brackets or token.kind not in ("open", "close")
        ]

    def align(self, tree: _Tree, expected: Expected) -> None:
        """Raise `_Differs` unless `tree` says what the tokens say."""
        if not self.source.items:
            raise _Differs((), "the original says nothing")
        if isinstance(tree, list) and not any(
            t.kind in ("open", "close") for t in self.source.items
        ):
            raise _Differs((), "the original is no array")
        self._value(tree, expected, ())
        if self._at < len(self._items):
            token = self._items[self._at]
            raise _Differs((), "something of the original is missing", token.text)
        if self.source.missing:
            last = self._last_path if self.source.in_order else None
            _refuse_placeable(tree, expected, self.source.missing, [], (), last)

    def _value(self, tree: _Tree, expected: Expected, path: tuple[str | int, ...]) -> None:
        if isinstance(tree, dict | list):
            if self._is_encoded(tree, expected, path):
                return
            self._bracket("open", "{" if isinstance(tree, dict) else "[", path)
            if isinstance(tree, dict):
                self._members(tree, expected, path)
            else:
                for index, item in enumerate(tree):
                    self._value(item, expected.item(index), (*path, index))
            self._bracket("close", "}" if isinstance(tree, dict) else "]", path)
        else:
            self._scalar(tree, expected, path)

    def _is_encoded(
        self, tree: dict[str, _Tree] | list[_Tree], expected: Expected, path: tuple[str | int, ...]
    ) -> bool:
        """Whether the original holds this container as a string, where the schema asks for it."""
        token = self._peek()
        if token is None or token.kind != "quoted" or token.is_name:
            return False
        if token.text.strip()[:1] not in ("{", "["):
            return False
        asked = expected.types
        if asked is None or "string" in asked:
            return False
        inner = _balanced(token.text, list(_lexed(token.text, 0, len(token.text), is_call=False)))
        try:
            _Alignment(inner).align(tree, expected)
        except _Differs as difference:
            raise _Differs(
                (*path, *difference.path), difference.detail, difference.expected
            ) from None
        self._at += 1
        return True

    def _members(
        self, tree: dict[str, _Tree], expected: Expected, path: tuple[str | int, ...]
    ) -> None:
        waiting = dict(tree)
        while True:
            token = self._peek()
            known = token is not None and token.is_name and token.text in tree
            if token is None or not known:
                break
            if not waiting and token.text in tree and not self.source.in_order:
                break  # without trusted brackets a name met again may belong further out
            self._at += 1
            waiting.pop(token.text, None)
            self._value(tree[token.text], expected.member(token.text), (*path, token.text))
        if waiting:
            name = next(iter(waiting))
            raise _Differs((*path, name), "this member is not in the original, or not here")

    def _bracket(
        self, kind: Literal["open", "close"], text: str, path: tuple[str | int, ...]
    ) -> None:
        if not self.source.in_order:
            return
        token = self._peek()
        if token is None or token.kind != kind or token.text != text:
            raise _Differs(path, "the original differs here", token.text if token else None)
        self._at += 1

    def _scalar(self, value: _Tree, expected: Expected, path: tuple[str | int, ...]) -> None:
        self._last_path = path
        token = self._peek()
        if token is None:
            raise _Differs(path, "this value is not in the original")
        if token.kind == "cut":
            raise _Differs(path, "the original ends inside this value", token.text)
        if token.is_name or token.kind in ("open", "close"):
            raise _Differs(path, "the original has no value here", token.text)
        if _is_same(token, value, expected):
            self._at += 1
            return
        if isinstance(value, str) and not isinstance(value, _Number):
            after = _verbatim(self.source.text, token, value)
            if after is not None:
                self._at = bisect_left(self._items, after, key=lambda item: item.start)
                return
        raise _Differs(path, "the value differs from the original", token.text)

    def _peek(self) -> _Token | None:
        return self._items[self._at] if self._at < len(self._items) else None


def _is_same(token: _Token, value: _Tree, expected: Expected) -> bool:
    """Whether `value` is the scalar of `token`, up to its quoting and what the schema asks for."""
    asked = expected.types or frozenset[str]()
    if value is None or isinstance(value, bool):
        spelling = "null" if value is None else "true" if value else "false"
        if token.kind == "bare":
            return token.text in _SPELLINGS[spelling]
        return value is not None and token.text == spelling and _asks(asked, "boolean")
    if isinstance(value, _Number):
        if token.text != value:
            return False
        return token.kind == "bare" or _asks(asked, "number") or _asks(asked, "integer")
    if not isinstance(value, str) or token.text != value:
        return False
    if token.kind == "quoted":
        return True
    if _NUMBER.fullmatch(value):
        return "string" in asked and not asked & {"number", "integer"}
    return not any(value in spellings for spellings in _SPELLINGS.values())


def _asks(asked: frozenset[str], wanted: str) -> bool:
    return wanted in asked and "string" not in asked


def _verbatim(text: str, token: _Token, value: str) -> int | None:
    """Where the original goes on, if `value` stands there as it is, quotation marks and all.

    A string whose inner quotation marks were not escaped is many tokens to the lexer. A mark inside
    it that looks like structure is not accepted: it could have swallowed the next member.
    """
    if token.kind != "quoted" or _STRUCTURE_INSIDE.search(value):
        return None
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    # A backslash that JSON reads as an escape is not a backslash that merely was not escaped.
    plain = () if _ESCAPE.search(value) else (value,)
    for spelled in (*plain, escaped, escaped.replace('\\"', '"')):
        end = token.start + 1 + len(spelled)
        if (
            text.startswith(spelled, token.start + 1)
            and text[end : end + 1] in _QUOTE_PAIRS[text[token.start]]
            and text[end : end + 1]
            and _DELIMITED.match(text, end + 1)
        ):
            return end + 1
    return None


def _refuse_placeable(
    tree: _Tree,
    expected: Expected,
    missing: int,
    chain: list[tuple[type, Expected]],
    path: tuple[str | int, ...],
    last: tuple[str | int, ...] | None,
) -> None:
    """Refuse a nesting that the original's brackets do not prove.

    With brackets missing, all but the first item of a container could belong to an outer one of the
    same kind, unless the schema knows their names here and not there. Where the brackets are only
    missing at the end, that concerns the containers around the `last` scalar alone.
    """
    if not isinstance(tree, dict | list) or (last is not None and path != last[: len(path)]):
        return
    outer = [place for kind, place in chain[-missing:] if kind is type(tree)]
    if outer and len(tree) > 1:
        names: list[str] = list(tree)[1:] if isinstance(tree, dict) else []
        if last is not None and isinstance(tree, dict) and len(last) > len(path):
            names = [str(last[len(path)])]
        certain = bool(names) and all(expected.declares(name) for name in names)
        for place in outer:
            certain = certain and bool(place.branches)
            certain = certain and not any(place.declares(name) for name in names)
        if not certain:
            raise _Differs(path, "the original's brackets do not say what belongs here")
    inner = [*chain, (type(tree), expected)]
    items: list[tuple[str | int, _Tree]] = (
        list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))
    )
    for key, item in items:
        place = expected.member(key) if isinstance(key, str) else expected.item(key)
        _refuse_placeable(item, place, missing, inner, (*path, key), last)


# -- saying what is wrong -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: tuple[str | int, ...]
    name: str
    text: str
    expected: Expected
    required: bool


def _explained(
    tokens: _Tokens, tree: _Tree, expected: Expected, difference: _Differs
) -> tuple[Fault, ...]:
    """One fault for each name whose values differ; failing that, the place of the difference."""
    said = _named_values(tokens.items)
    leaves = list(_leaves(tree, expected, (), "", required=False))
    found: dict[str, list[_Leaf]] = {}
    for leaf in leaves:
        found.setdefault(leaf.name, []).append(leaf)
    faults: list[Fault] = []
    names = {token.text for token in tokens.items if token.is_name}
    for name, group in found.items():
        values = said.get(name, [])
        if name and name not in names:
            faults += [_fault(leaf, "the original has no such member", None) for leaf in group]
        elif [leaf.text for leaf in group] != values:
            for index, leaf in enumerate(group):
                wanted = values[index] if index < len(values) else None
                if wanted != leaf.text:
                    faults.append(_fault(leaf, "the value differs from the original", wanted))
    for name, values in said.items():
        if len(values) > len(found.get(name, ())) and name:
            subject = _subject(name, expected.member(name), required=name in expected.required)
            faults.append(
                Fault(
                    pointer=pointer(name),
                    code=_code(subject),
                    detail="a value of the original is missing",
                    expected=_short(values[-1]),
                )
            )
    place = pointer(*difference.path)
    if not any(fault.pointer == place for fault in faults):
        name = next((str(t) for t in reversed(difference.path) if isinstance(t, str)), "")
        subject = _subject(name, _at(expected, difference.path), required=False)
        got = next((leaf.text for leaf in leaves if leaf.path == difference.path), None)
        faults.append(
            Fault(
                pointer=place,
                code=_code(subject),
                detail=difference.detail,
                expected=_short(difference.expected),
                got=_short(got),
            )
        )
    return tuple(faults)


def _named_values(items: list[_Token]) -> dict[str, list[str]]:
    """The scalars of the original under the nearest name in front of them, in their order."""
    said: dict[str, list[str]] = {}
    name = ""
    for token in items:
        if token.is_name:
            name = token.text
        elif token.kind not in ("open", "close"):
            said.setdefault(name, []).append(_plain(token))
    return said


def _plain(token: _Token) -> str:
    if token.kind == "bare":
        for spelling, spellings in _SPELLINGS.items():
            if token.text in spellings:
                return spelling
    return token.text


def _leaves(
    tree: _Tree, expected: Expected, path: tuple[str | int, ...], name: str, *, required: bool
) -> Iterator[_Leaf]:
    if isinstance(tree, dict):
        for key, item in tree.items():
            needed = key in expected.required
            yield from _leaves(item, expected.member(key), (*path, key), key, required=needed)
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _leaves(item, expected.item(index), (*path, index), name, required=required)
    else:
        text = tree if isinstance(tree, str) else json.dumps(tree)
        yield _Leaf(path, name, text, expected, required)


def _fault(leaf: _Leaf, detail: str, wanted: str | None) -> Fault:
    subject = _subject(leaf.name, leaf.expected, required=leaf.required)
    return Fault(
        pointer=pointer(*leaf.path),
        code=_code(subject),
        detail=detail,
        expected=_short(wanted),
        got=_short(leaf.text),
    )


def _at(expected: Expected, path: tuple[str | int, ...]) -> Expected:
    for token in path:
        expected = expected.member(token) if isinstance(token, str) else expected.item(token)
    return expected


def _subject(name: str, expected: Expected, *, required: bool) -> Subject:
    """What a member is about: the schema's own word first, then its format, then the name."""
    for word in expected.texts(_ANNOTATION):
        if word in _ANNOTATED:
            return _ANNOTATED[word]
    for word in expected.texts("format"):
        if word in _SUBJECT_FORMATS:
            return _SUBJECT_FORMATS[word]
    for word in reversed(_WORDS.findall(name[-128:])):
        if word.lower() in _SUBJECT_WORDS:
            return _SUBJECT_WORDS[word.lower()]
    return "required" if required else "value"


def _code(subject: Subject) -> str:
    return "semantic_violation" if subject == "value" else f"semantic_violation_{subject}"


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= 80 else text[:79] + "…"
