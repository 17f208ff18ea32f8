"""Read one JSON-like value from broken text, collecting the edits that make it strict JSON.

The reader never makes a value of its own: numbers and strings are copied, and what is not known for
certain raises `Refusal`. It looks at each character a bounded number of times, and its recursion
ends at `MAX_DEPTH`, so hostile text costs linear time and never a `RecursionError`.

The rule for brackets: where the text ends in a wrong run of closing brackets, the mending is made
only if every mending with as few changes gives the same value. A missing bracket that could as well
have stood further in front is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from signet.core.expected import Expected
from signet.receipts.canonical import MAX_DEPTH, Json, canonicalize, parse, pointer
from signet.receipts.errors import ReceiptError

EditKind = Literal[
    "quotes",  # other quotation marks, or escapes a strict reader refuses
    "name",  # quotation marks around a bare member name
    "literal",  # True, None, NULL
    "comma",  # one too many or one missing
    "separator",  # `=`, `=>`, `;` or full-width punctuation
    "whitespace",
    "comment",
    "template_token",
    "fence",
    "tag",
    "wrapper",  # quotation marks or brackets around the whole
    "prose",
    "call",  # `name(a=1)` or `name` in front
    "decoded",  # JSON inside a JSON string
    "brackets",  # at the very end
    "duplicate_name",  # the same member twice
    "coercion",
]

TEMPLATE_TOKEN = re.compile(
    r"<\|[^|<>{}\[\]\"'\n]{1,64}\|>|<\uff5c[^\uff5c<>{}\[\]\"'\n]{1,64}\uff5c>"
    r"|</?s>|<(?:bos|eos|pad|unk|eom|eot|start_of_turn|end_of_turn|end_of_utterance)>"
    # Only names known to be tokens: `[USD]` is an array that lost its quotation marks.
    r"|\[/?(?:INST|TOOL_CALLS?|TOOL_RESULTS?|TOOL_CONTENT|AVAILABLE_TOOLS|ARGS|CALL_ID|THINK"
    r"|SYSTEM_PROMPT)\]"
)
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
LITERALS = {
    "true": "true",
    "false": "false",
    "null": "null",
    "True": "true",
    "False": "false",
    "None": "null",
    "TRUE": "true",
    "FALSE": "false",
    "NULL": "null",
    "Null": "null",
}
DOUBLE_MARKS = "“”„‟＂"
SINGLE_MARKS = "‘’‚‛"
QUOTES = "\"'" + DOUBLE_MARKS + SINGLE_MARKS

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_ODD_WHITESPACE = re.compile(
    r"[\f\v\x85\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]+"
)
_LINE = re.compile(r"[^\n\r\u2028\u2029]*")
_END_OF_LINE = re.compile(r"[\n\r\u2028\u2029]")
_PLAIN_STRING = re.compile(r'"[^"\\\x00-\x1f]*"')
_BARE = re.compile(r"[^\s,:;{}\[\]()\"'<“”„‟＂‘’‚‛，：；\ufeff\u200b\u2060]+")
_BARE_NAME = re.compile(r"[^\W\d][\w$-]*|\$[\w$]*|(?:0|[1-9][0-9]{0,15})(?![\w.])")
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_CHUNKS = {
    '"': re.compile(r'[^"\\\x00-\x1f]*'),
    "'": re.compile(r"[^'\"\\\x00-\x1f]*"),
    "“": re.compile(r'[^“”„‟＂"\\\x00-\x1f]*'),
    "‘": re.compile(r'[^‘’‚‛\'"\\\x00-\x1f]*'),
}
_CONTROLS = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_AFTER_VALUE = re.compile(r"</[A-Za-z_]|```|~~~")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*")
_NEVER_A_WORD = frozenset({"nan", "inf", "infinity", "undefined", "nil", "none", "null"}) | {
    *("true", "false", "yes", "no", "on", "off", "na")
}
_INTEGER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
# `#ff0000` and `//cdn.example/x` may be values that lost their quotation marks.
_WORD_COMMENT = {"#": re.compile(r"[^\s#]+"), "/": re.compile(r"/[^\s/]*[/.:@]\S*")}
_ARITHMETIC_START = re.compile(r"\s*[0-9(.+-]")


class Refusal(Exception):
    """The text cannot be read with certainty. Never leaves `signet.core.repair`."""

    def __init__(self, code: str, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.offset = offset
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the result as a path of parents, so that an edit costs no copy of its path."""

    parent: Place | None = None
    token: str | int = ""

    @property
    def pointer(self) -> str:
        """The JSON Pointer (RFC 6901) of this place."""
        return pointer(*reversed(list(self._tokens())))

    def _tokens(self) -> Iterator[str | int]:
        place = self
        while place.parent is not None:
            yield place.token
            place = place.parent


ROOT = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change: `length` characters of the original at `offset` became `replacement`.

    `place.pointer` leads to where that is in the result; the root stands for what lies around it.
    An edit inside a string that was decoded carries the offset and length of that whole string.
    """

    kind: EditKind
    offset: int
    length: int
    replacement: str
    place: Place = ROOT

    @property
    def pointer(self) -> str:
        """The JSON Pointer of the place in the result."""
        return self.place.pointer


def apply(text: str, edits: list[Edit], start: int = 0, end: int | None = None) -> str:
    """`text[start:end]` after those `edits`, which are sorted and do not overlap."""
    pieces: list[str] = []
    at = start
    for edit in edits:
        pieces += (text[at : edit.offset], edit.replacement)
        at = edit.offset + edit.length
    pieces.append(text[at:end])
    return "".join(pieces)


class _Finished(Exception):
    """The text ends inside open containers, or a closing bracket fits none of them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at


@dataclass(slots=True)
class _Frame:
    """An open container: what its final bracket may depend on."""

    closer: str
    expected: Expected
    count: int = 0
    last_name: str = ""
    child_closed: str = ""  # the closer of the member just ended, if that was a container
    could_have_gone_on: bool = False  # a later member would fit into an earlier container too
    early_child: bool = False  # something followed a closed container


@dataclass(slots=True)
class _Member:
    start: int
    end: int
    edits: slice


@dataclass(slots=True)
class Reader:
    """Reads one value of `text`; `edits` then hold what makes `text[start:end]` strict JSON."""

    text: str
    edits: list[Edit] = field(default_factory=list[Edit])
    _frames: list[_Frame] = field(default_factory=list[_Frame])
    _closed: list[_Frame] = field(default_factory=list[_Frame])
    _run: list[int] = field(
        default_factory=list[int]
    )  # offsets of the brackets since the last token
    _token_end: int = 0
    _after_number: bool = False
    _name_after_gap: bool = False  # a bare name followed a missing comma
    _last_bracket: int = -1

    def __post_init__(self) -> None:
        self._last_bracket = max(self.text.rfind(bracket) for bracket in "{}[]")

    # -- the three shapes at the root -----------------------------------------------------------

    def read_container(self, start: int, expected: Expected) -> int:
        """Read the object or array at `start`; return where it ends."""
        try:
            end = self._value(start, expected, ROOT)
        except _Finished as finished:
            return self._finish(finished.at)
        surplus = self._blanks(end)
        if self.text[surplus : surplus + 1] in ("}", "]"):
            return self._finish(surplus)
        return end

    def read_scalar(self, start: int, expected: Expected) -> int:
        """Read the lone scalar at `start`; return where it ends."""
        return self._value(start, expected, ROOT)

    def read_call(self, opening: re.Match[str], expected: Expected) -> int:
        """Read `name(a=1, b='x')` after its `opening`, as the object of its arguments."""
        in_list = opening.group().startswith("[")
        self._edit("call", opening.start(), opening.end(), "{")
        frame = _Frame(")", expected)
        self._frames.append(frame)
        try:
            end = self._members(opening.end(), frame, ROOT, "=")
        except _Finished as finished:
            raise Refusal("truncated", finished.at, "the call is not closed") from None
        self._frames.pop()
        closing = end - 1
        if in_list:
            end = self.skip(end)
            if self.text[end : end + 1] == ",":
                trailing = self.skip(end + 1)
                code = "missing_value" if self.text[trailing : trailing + 1] == "]" else ""
                raise Refusal(code or "several_values", end, "there is more than one call")
            if self.text[end : end + 1] != "]":
                raise Refusal("unbalanced", end, "the list of calls is not closed by ']'")
            end += 1
        self.edits = [edit for edit in self.edits if edit.offset < closing]
        self._edit("call", closing, end, "}")
        return end

    # -- values -----------------------------------------------------------------------------------

    def _value(self, at: int, expected: Expected, place: Place) -> int:
        text = self.text
        if self.at_end(at):
            raise Refusal("truncated", at, "the text ends where a value is due")
        first = text[at]
        if first == "{" or first == "[":
            return self._container(at, expected, place)
        if first in QUOTES:
            end = self._string_value(at, expected, place)
        else:
            end = self._bare_value(at, expected, place)
        self._closed.clear()
        self._run.clear()
        self._token_end = end
        return end

    def _container(self, at: int, expected: Expected, place: Place) -> int:
        if len(self._frames) >= MAX_DEPTH:
            raise Refusal("too_deep", at, f"nested more than {MAX_DEPTH} deep")
        frame = _Frame("}" if self.text[at] == "{" else "]", expected)
        self._frames.append(frame)
        self._closed.clear()
        self._run.clear()
        self._token_end = at + 1
        self._after_number = False
        if frame.closer == "}":
            end = self._members(at + 1, frame, place, ":")
        else:
            end = self._elements(at + 1, frame, place)
        self._frames.pop()
        self._closed.append(frame)
        self._run.append(end - 1)
        self._after_number = False
        if self._frames:
            self._frames[-1].child_closed = frame.closer
        return end

    def _string_value(self, at: int, expected: Expected, place: Place) -> int:
        end, literal = self.string(at)
        self._after_number = False
        asked = expected.types if expected.branches else None
        if asked is not None and "string" not in asked:
            coerced = _coerced(content_of(literal or self.text[at:end]), asked)
            if coerced is not None:
                self._edit(coerced[0], at, end, coerced[1], place)
                return end
        if literal is not None:
            self._edit("quotes", at, end, literal, place)
        return end

    def _bare_value(self, at: int, expected: Expected, place: Place) -> int:
        match = _BARE.match(self.text, at)
        if match is None:
            raise self._unexpected(at)
        word, end = match.group(), match.end()
        self._after_number = False
        asked = expected.types if expected.branches else None
        if NUMBER.fullmatch(word):
            self._after_number = True
            if (
                asked is not None
                and not asked & {"number", "integer"}
                and "string" in asked
                and _PLAIN_NUMBER.fullmatch(word)
            ):
                self._edit("coercion", at, end, f'"{word}"', place)
            return end
        if self.text[end : end + 1] in ("(", *QUOTES):
            raise Refusal("not_a_value", at, f"{_short(word)} is followed by no separator")
        if word in LITERALS:
            if word != LITERALS[word]:
                self._edit("literal", at, end, LITERALS[word], place)
            return end
        if asked is not None and "string" in asked and _is_word(word, expected):
            self._edit("coercion", at, end, f'"{word}"', place)
            return end
        raise _not_a_value(word, at)

    # -- containers -------------------------------------------------------------------------------

    def _members(self, at: int, frame: _Frame, place: Place, separator: str) -> int:
        """Read the members of an object or of a call's arguments; return where it ends."""
        text = self.text
        seen: dict[str, _Member] = {}
        before = at  # where the previous member ended
        at = self.skip(at)
        while True:
            if self.at_end(at):
                raise _Finished(at)
            if text[at] in "}])":
                return self._close(at, frame)
            mark = len(self.edits)
            name, at = self._name(at, place, frame)
            at = self._colon(self.skip(at), separator)
            at = self.skip(at)
            if text[at : at + 1] in ("}", "]", ")", ",", ""):
                raise Refusal("missing_value", at, f"the member {_short(name)} has no value")
            self._next_item(frame, name)
            member = Place(place, name)
            value_from = len(self.edits)
            end = self._value(at, frame.expected.member(name), member)
            this = _Member(at, end, slice(value_from, len(self.edits)))
            if name in seen:
                self._drop_duplicate(seen[name], this, name, before, mark, member)
            else:
                seen[name] = this
            before = end
            at = self._after_item(end, frame, name=True)

    def _elements(self, at: int, frame: _Frame, place: Place) -> int:
        text = self.text
        at = self.skip(at)
        while True:
            if self.at_end(at):
                raise _Finished(at)
            if text[at] in "}])":
                return self._close(at, frame)
            self._next_item(frame, "")
            element = Place(place, frame.count - 1)
            end = self._value(at, frame.expected.item(frame.count - 1), element)
            at = self._after_item(end, frame, name=False)

    def _next_item(self, frame: _Frame, name: str) -> None:
        if frame.child_closed:
            frame.early_child = True
            frame.could_have_gone_on |= frame.child_closed == frame.closer
            frame.child_closed = ""
        frame.count += 1
        frame.last_name = name

    def _close(self, at: int, frame: _Frame) -> int:
        if self.text[at] == frame.closer:
            return at + 1
        if frame.closer == ")":
            raise self._unexpected(at)
        raise _Finished(at)

    def _name(self, at: int, place: Place, frame: _Frame) -> tuple[str, int]:
        if self.text[at] in QUOTES:
            if frame.closer == ")":
                raise Refusal("unnamed_argument", at, "an argument without a name")
            end, literal = self.string(at)
            name = content_of(literal if literal is not None else self.text[at:end])
            if literal is not None:
                self._edit("quotes", at, end, literal, Place(place, name))
        else:
            match = _BARE_NAME.match(self.text, at)
            if match is None:
                raise self._unexpected(at)
            name, end = match.group(), match.end()
            if name in LITERALS:
                raise Refusal("literal_name", at, f"{name} stands where a name is due")
            self._edit("name", at, end, f'"{name}"', Place(place, name))
        self._closed.clear()
        self._run.clear()
        self._token_end = end
        self._after_number = False
        return name, end

    def _colon(self, at: int, separator: str) -> int:
        text = self.text
        found = text[at : at + 1]
        if found == ":" and separator == ":":
            return at + 1
        length = 2 if text.startswith("=>", at) else 1 if found in ("=", "：") else 0
        if length and text[at + length : at + length + 1] not in ("=", ">"):
            self._edit("separator", at, at + length, ":")
            return at + length
        if self.at_end(at):
            raise Refusal("truncated", at, "the text ends after a member name")
        raise Refusal("missing_colon", at, "a member name is not followed by a colon")

    def _after_item(self, end: int, frame: _Frame, *, name: bool) -> int:
        """Go over what separates two items; return where the next one or the bracket stands."""
        text = self.text
        at = self.skip(end)
        if self.at_end(at):
            raise _Finished(at)
        found = text[at]
        if found in ",，" or (found == ";" and name and frame.closer == "}"):
            return self._comma(at, frame, name=name)
        if found in "}])":
            return at
        self._missing_comma(end, at, name=name)
        return at

    def _comma(self, at: int, frame: _Frame, *, name: bool) -> int:
        text = self.text
        comma = at
        if text[at] != ",":
            self._edit("separator", at, at + 1, ",")
        mark = len(self.edits)
        self._after_number = False
        at = self.skip(at + 1)
        while name and text[at : at + 1] == ",":
            self._edit("comma", at, at + 1, "")
            at = self.skip(at + 1)
        if self.at_end(at):
            raise Refusal("truncated", at, "the text ends after a comma")
        if text[at] == frame.closer:
            if text[comma] == ",":
                self.edits.insert(mark, _edit("comma", comma, comma + 1, "", ROOT))
            else:
                self.edits[mark - 1] = _edit("comma", comma, comma + 1, "", ROOT)
        elif text[at] in "}])":
            raise Refusal("unbalanced", at, "a bracket closes what was not opened last")
        elif text[at] == ",":
            raise Refusal("missing_value", at, "nothing stands between two commas")
        self._closed.clear()
        self._run.clear()
        return at

    def _missing_comma(self, end: int, at: int, *, name: bool) -> None:
        """Put a comma between two items if what follows can be nothing else than a next item."""
        text = self.text
        found = text[at]
        if self._frames[-1].closer == ")":
            raise self._unexpected(at)
        spaced = at > end
        quoted = found in QUOTES
        number_before = self._after_number
        if name:
            # `_members` refuses whatever is not a name with its colon.
            digits = found.isdigit()
            certain = (spaced and not (digits and number_before)) or quoted or text[end - 1] in "}]"
            certain = certain and (found == '"' or spaced or text[end - 1] not in QUOTES)
        elif found in "{[":
            certain = True
        elif quoted and text[end - 1] in QUOTES:
            # `"a " "b"` is how a long string is continued, and how inner marks look unescaped;
            # between single marks it is Python, which would make one string of the two.
            blank = text[end - 2 : end - 1].isspace() or text[at + 1 : at + 2].isspace()
            certain = spaced and not blank and "'" not in (text[end - 1], found)
        elif quoted:
            certain = text[end - 1] in "}]" or self._on_next_line(end, at)
        elif number_before and (found.isdigit() or found in "+-."):
            # `1 234.50` may be one number; on a line of its own only a digit begins another.
            certain = found.isdigit() and self._on_next_line(end, at)
        else:
            certain = spaced and (text[end - 1] not in QUOTES or self._on_next_line(end, at))
        if not certain:
            raise self._unexpected(at)
        self._name_after_gap |= name and not quoted
        self.edits.append(_edit("comma", end, end, ",", ROOT))
        self._closed.clear()
        self._run.clear()

    def _on_next_line(self, end: int, at: int) -> bool:
        return _END_OF_LINE.search(self.text, end, at) is not None

    def _drop_duplicate(
        self, first: _Member, again: _Member, name: str, before: int, mark: int, place: Place
    ) -> None:
        """Drop a member that says again what it said before; any other repetition is refused."""
        if not self._same_value(first, again):
            raise Refusal("duplicate_name", again.start, f"{_short(name)} has two values")
        while self.edits and (len(self.edits) > mark or self.edits[-1].offset >= before):
            self.edits.pop()
        self._edit("duplicate_name", before, again.end, "", place)

    def _same_value(self, first: _Member, again: _Member) -> bool:
        if first.end - first.start > 4 * (again.end - again.start) + 64:
            return False  # keeps many short repetitions of one long value linear
        texts = [
            apply(self.text, self.edits[member.edits], member.start, member.end)
            for member in (first, again)
        ]
        try:
            return texts[0] == texts[1] or _as_written(texts[0]) == _as_written(texts[1])
        except ValueError:
            return False

    # -- the final run of brackets ----------------------------------------------------------------

    def _finish(self, at: int) -> int:
        """Mend the closing brackets at the end of the text, if there is one way to do it."""
        text = self.text
        chain = self._frames + self._closed[::-1]
        run = list(self._run)
        while text[at : at + 1] in ("}", "]"):
            run.append(at)
            at = self._blanks(at + 1)
        have = [text[offset] for offset in run]
        needed = [frame.closer for frame in reversed(chain)]
        end = run[-1] + 1 if run else self._token_end
        if len(have) < len(needed) and _is_subsequence(have, needed):
            if not run and self._after_number:
                raise Refusal("truncated_number", end, "a number at the very end may be cut off")
            if not run and not chain[-1].count:
                raise Refusal("truncated", end, "the text ends after an opening bracket")
            if self._name_after_gap:
                raise Refusal("truncated", end, "what follows a missing comma may be prose")
            self._refuse_if_placeable(chain, len(needed) - len(have), end)
            self._insert_missing(needed, run, end)
        elif len(have) > len(needed) and _is_subsequence(needed, have):
            self._refuse_if_droppable(chain, len(have) - len(needed), end)
            self._delete_surplus(needed, run)
        else:
            raise Refusal("unbalanced", end, "the closing brackets do not fit the opening ones")
        self.edits.sort(key=lambda edit: edit.offset)
        return at

    def _refuse_if_placeable(self, chain: list[_Frame], missing: int, at: int) -> None:
        """Refuse when the missing brackets could stand in front of a member just as well.

        The last member of an inner container may belong to an outer one of the same kind. That
        reading needs the brackets between the two, so it is as near when no fewer are missing.
        """
        for j, inner in enumerate(chain):
            for i in range(max(0, j - missing), j):
                outer = chain[i]
                if inner.closer != outer.closer or inner.count < 2:
                    continue
                name = inner.last_name
                if (
                    name
                    and inner.expected.declares(name)
                    and outer.expected.branches
                    and not outer.expected.declares(name)
                ):
                    continue
                raise Refusal("ambiguous_brackets", at, "a missing bracket fits several places")

    def _refuse_if_droppable(self, chain: list[_Frame], surplus: int, at: int) -> None:
        """Refuse when the bracket too many may be one that closed an earlier container."""
        for frame in chain:
            if frame.could_have_gone_on or (surplus > 1 and frame.early_child):
                raise Refusal("ambiguous_brackets", at, "one of several brackets is too many")

    def _insert_missing(self, needed: list[str], run: list[int], end: int) -> None:
        waiting = list(run)
        for closer in needed:
            if waiting and self.text[waiting[0]] == closer:
                waiting.pop(0)
            else:
                self._edit("brackets", (at := waiting[0] if waiting else end), at, closer)

    def _delete_surplus(self, needed: list[str], run: list[int]) -> None:
        waiting = list(needed)
        for offset in run:
            if waiting and self.text[offset] == waiting[0]:
                waiting.pop(0)
            elif self.text[offset] == "]":
                # `[1]]` may as well be `[[1]]`; an object cannot lack its `{` unnoticed.
                raise Refusal("ambiguous_brackets", offset, "an opening bracket may be missing")
            else:
                self._edit("brackets", offset, offset + 1, "")

    # -- tokens -----------------------------------------------------------------------------------

    def at_end(self, at: int) -> bool:
        """Whether the value can go no further: the end of the text, or of what is wrapped."""
        if at >= len(self.text):
            return True
        return at > self._last_bracket and _AFTER_VALUE.match(self.text, at) is not None

    def skip(self, at: int) -> int:
        """Go over whitespace, comments and template tokens; all but plain whitespace is an edit."""
        text = self.text
        while True:
            at = self._blanks(at)
            found = text[at : at + 1]
            if found in ("/", "#"):
                end = self._comment_end(at)
                if end == at:
                    return at
                self._edit("comment", at, end, "")
            elif found in ("<", "[") and (token := TEMPLATE_TOKEN.match(text, at)):
                end = token.end()
                self._edit("template_token", at, end, "")
            elif found > "\x7f" or found in ("\f", "\v"):
                odd = _ODD_WHITESPACE.match(text, at)
                if odd is None:
                    return at
                end = odd.end()
                self._edit("whitespace", at, end, " ")
            else:
                return at
            at = end

    def _blanks(self, at: int) -> int:
        match = _WHITESPACE.match(self.text, at)
        return match.end() if match else at

    def _comment_end(self, at: int) -> int:
        """The end of the comment at `at`, or `at` if there is none."""
        text = self.text
        if text.startswith("/*", at):
            close = text.find("*/", at + 2)
            if close < 0:
                raise Refusal("truncated", at, "a comment is not closed")
            return close + 2
        if text[at] == "/" and not text.startswith("//", at):
            return at
        line = _LINE.match(text, at)
        end = line.end() if line else len(text)
        if self._after_number and text[at] == "/" and _ARITHMETIC_START.match(text, at + 2, end):
            raise Refusal("arithmetic", at, "this may be a division")
        body = text[at + 1 : end].rstrip()
        if self._value_is_due(at) and _WORD_COMMENT[text[at]].fullmatch(body):
            raise Refusal("ambiguous_comment", at, f"{_short(text[at] + body)} may be a value")
        if end == len(text) and any(mark in text[at:end] for mark in "{}[]\"'"):
            raise Refusal("ambiguous_comment", at, "a comment may hide the end of the value")
        return end

    def _value_is_due(self, at: int) -> bool:
        """Whether what stands at `at` is in the place of a value."""
        before = at - 1
        while before >= 0 and self.text[before].isspace():
            before -= 1
        if before < 0 or not self._frames:
            return False
        in_array = self._frames[-1].closer == "]"
        return self.text[before] in (":=[" if not in_array else ":=[,")

    def string(self, at: int) -> tuple[int, str | None]:
        """Read the string at `at`: its end, and its strict spelling unless it stands there."""
        text = self.text
        plain = _PLAIN_STRING.match(text, at)
        if plain is not None:
            return plain.end(), None
        opener = text[at]
        family = "“" if opener in DOUBLE_MARKS else "‘" if opener in SINGLE_MARKS else opener
        closers = {"“": DOUBLE_MARKS, "‘": SINGLE_MARKS}.get(family, opener)
        chunk = _CHUNKS[family]
        pieces: list[str] = ['"']
        strict = opener == '"'
        here = at + 1
        while True:
            match = chunk.match(text, here)
            stop = match.end() if match else here
            pieces.append(text[here:stop])
            if stop >= len(text):
                raise Refusal("truncated_string", at, "a string is not closed")
            found = text[stop]
            if found in closers:
                break
            if found == "\\":
                piece, here = self._escape(stop)
                strict = strict and piece is None
                pieces.append(text[stop:here] if piece is None else piece)
                continue
            if found == '"' and family == "'":
                pieces.append('\\"')
            elif found in "\"'":
                raise Refusal("ambiguous_quotes", stop, "two kinds of quotation marks are mixed")
            else:
                pieces.append(_CONTROLS.get(found) or f"\\u{ord(found):04x}")
                strict = False
            here = stop + 1
        pieces.append('"')
        return stop + 1, None if strict else "".join(pieces)

    def _escape(self, at: int) -> tuple[str | None, int]:
        """The strict spelling of the escape at `at` (None: it is strict), and its end.

        Languages disagree about every other escape, and a lone backslash may as well be meant.
        """
        follows = self.text[at + 1 : at + 2]
        if follows and follows in '"\\/bfnrt':
            return None, at + 2
        if follows == "u" and _HEX4.match(self.text, at + 2):
            return None, at + 6
        if follows == "'":
            return "'", at + 2
        if not follows:
            raise Refusal("truncated_string", at, "a string ends in a backslash")
        raise Refusal("invalid_escape", at, f"\\{follows} has no one meaning")

    def _unexpected(self, at: int) -> Refusal:
        if self.at_end(at):
            return Refusal("truncated", at, "the text ends inside a value")
        word = _BARE.match(self.text, at)
        if word is not None:
            return _not_a_value(word.group(), at)
        return Refusal("unexpected", at, f"{_short(self.text[at])} is not expected here")

    def _edit(
        self, kind: EditKind, start: int, end: int, replacement: str, place: Place = ROOT
    ) -> None:
        self.edits.append(_edit(kind, start, end, replacement, place))


def _edit(kind: EditKind, start: int, end: int, replacement: str, place: Place) -> Edit:
    return Edit(kind=kind, offset=start, length=end - start, replacement=replacement, place=place)


def content_of(literal: str) -> str:
    """The text that the strict string `literal` stands for."""
    if "\\" not in literal:
        return literal[1:-1]
    return json.loads(literal)


def _coerced(content: str, asked: frozenset[str]) -> tuple[EditKind, str] | None:
    """What the string `content` becomes where the schema asks for another type, if it is exact."""
    if "boolean" in asked and content in ("true", "false"):
        return "coercion", content
    if "integer" in asked and _INTEGER_TEXT.fullmatch(content) and _is_canonical(content):
        return "coercion", content
    if "number" in asked and NUMBER.fullmatch(content) and _is_canonical(content):
        return "coercion", content
    stripped = content.strip()
    if stripped[:1] in ("{", "["):
        wanted = "object" if stripped[0] == "{" else "array"
        if wanted in asked and decodes(stripped) is not None:
            return "decoded", stripped
    return None


def _as_written(text: str) -> object:
    """The value of strict `text` with its numbers as they are spelled, so `1` is not `1.0`."""
    return json.loads(text, parse_int=_spelled, parse_float=_spelled)


def _spelled(digits: str) -> tuple[str]:
    return (digits,)


def decodes(content: str) -> Json | None:
    """The object or array that `content` strictly is."""
    if content[:1] not in ("{", "["):
        return None
    try:
        return parse(content)
    except ReceiptError:
        return None


def _is_canonical(number: str) -> bool:
    """Whether `number` is spelled as RFC 8785 spells it."""
    if len(number) > 32:
        return False
    try:
        value = parse(number)
        return isinstance(value, int | Decimal) and canonicalize(value) == number.encode()
    except ReceiptError:
        return False


def _is_word(word: str, expected: Expected) -> bool:
    """Whether a bare `word` can be nothing but the string a schema asks for."""
    if word in expected.words:
        return True
    return (
        not expected.words
        and _WORD.fullmatch(word) is not None
        and word.lower() not in _NEVER_A_WORD
    )


def _is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def _not_a_value(word: str, at: int) -> Refusal:
    bare = word.lstrip("+-").lower()
    if bare in ("nan", "inf", "infinity"):
        return Refusal("not_finite", at, f"{_short(word)} is no JSON number")
    if word.startswith(("...", "…")):
        return Refusal("elided", at, "something was left out")
    if word[0].isdigit() or word[0] in "+-.":
        return Refusal("number_malformed", at, f"{_short(word)} is no number that can be kept")
    return Refusal("not_a_value", at, f"{_short(word)} is neither a number, a literal nor quoted")


def _short(text: str) -> str:
    shown = text if len(text) <= 40 else text[:39] + "…"
    return json.dumps(shown, ensure_ascii=False)
