"""YAML and JSON: what expands, nests, repeats, or is a number that no one can print."""

import json
from collections.abc import Callable
from functools import partial

Contents = dict[str, bytes | Callable[[], bytes]]
_LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)
_MERGES = "\n".join(
    ["m0: &m0 {k0: 1}"] + [f"m{n}: &m{n} {{k{n}: 1, <<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)

NUMBERS = {
    "an integer of 6,000 digits": "9" * 6_000,
    "an integer of 900,000 digits": "9" * 900_000,
    "a hexadecimal integer of 6,000 digits": "0x" + "f" * 6_000,
    "a hexadecimal integer of 900,000 digits": "0x" + "f" * 900_000,
    "a binary integer of 900,000 digits": "0b" + "1" * 900_000,
    "an octal integer of 900,000 digits": "0" + "7" * 900_000,
    "an integer in base 60 of 300,000 places": "1" + ":59" * 300_000,
    "a fraction in base 60 of 300,000 places": "1" + ":59" * 300_000 + ".5",
    "a fraction with 900,000 digits": "1." + "3" * 900_000,
    "a number beyond every float": "1e999999999",
    "a number that is none": ".nan",
    "infinity": "-.inf",
    "a negative number": "-1",
    "a date that is none": "2026-99-99",
    "a time with a zone that is none": "2026-01-01T00:00:00+99:99",
    "bytes that are no base64": "!!binary ___",
    "an object of Python": "!!python/object/apply:os.system ['touch it-ran']",
    "a name of Python": "!!python/name:os.system",
    "a new object of Python": "!!python/object/new:subprocess.Popen [['touch', 'it-ran']]",
    "a module of Python": "!!python/module:antigravity",
    "a tuple of Python": "!!python/tuple [1, 2]",
    "a set": "!!set {a, b}",
    "an ordered mapping": "!!omap [a: 1, a: 2]",
    "an ordered mapping that is none": "!!omap 3",
    "pairs that are none": "!!pairs 3",
    "a null tag on a list": "!!null [1]",
    "an integer tag on a word": "!!int abc",
    "an integer tag on nothing": "!!int ''",
    "a time tag on a word": "!!timestamp abc",
    "a boolean tag on a word": "!!bool abc",
    "a text tag on a list": "!!str [1]",
    "a mapping tag on a list": "!!map [1]",
    "an integer tag on a sign": "!!int '-'",
    "a float tag on a sign": "!!float '+'",
    "lists, 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "lists, 900 deep": "[" * 900 + "]" * 900,
    "mappings, 50,000 deep": "{a: " * 50_000 + "1" + "}" * 50_000,
    "quotes that never close": "'" + "x" * 500_000,
    "a text with half a character": '"\\ud800"',
    "a text with NUL": '"a\\0b"',
    "a text that clears the terminal": '"\\e[2J\\e]0;owned\\a"',
    "an alias to nothing": "*nothing",
    "half a million commas": "[" + "," * 500_000 + "]",
    "100,000 brackets, none closed": "{" * 100_000,
}
"""Values in the place of a number."""

WHOLE = {
    "aliases that become 10^12 values": _LAUGHS,
    "merge keys that become 9^11 keys": _MERGES,
    "a list that holds itself": "a: &a [*a]",
    "a mapping that merges itself": "a: &a {<<: *a}",
    "a mapping that is its own key": "&a {*a : 1}",
    "a list as a key": "[1, 2]: 3",
    "a key twice": "name: a\nname: b",
    "a key of 900,000 characters": "k" * 900_000 + ": 1",
    "80,000 unknown keys": "\n".join(f"key{n}: 1" for n in range(80_000)),
    "a list of 500,000 numbers": "[" + "1," * 400_000 + "1]",
    "two documents": "a: 1\n---\nb: 2",
    "a directive of a version of the future": "%YAML 9.9\n---\na: 1",
    "a handle of someone else": "%TAG ! tag:example.org,2000:\n---\n!x a",
    "a tab in the place of spaces": "a:\n\tb: 1",
    "only a comment": "# nothing",
    "a word": "word",
    "a list": "- a\n- b",
    "a million spaces": " " * 1_000_000 + "a: 1",
    "500,000 lines of dashes": "- \n" * 300_000,
    "block lists, 2,000 deep": "- " * 2_000 + "a",
    "block lists, 200,000 deep": "- " * 200_000 + "a",
    "block mappings, 1,300 deep": "\n".join(" " * n + "a:" for n in range(1_300)),
    "100,000 anchors": "\n".join(f"- &a{n} x" for n in range(90_000)),
    "question marks, 100,000": "? " * 100_000,
    "more than a mebibyte": "a: " + "x" * 2**20,
    "control characters": "name: a\x07\x1b[2J",
    "an address in the place of a file": "source: file:///etc/passwd",
}
"""Whole texts."""

BYTES = {
    "UTF-16 without a mark": "name: a".encode("utf-16-le"),
    "a lone continuation byte": b"name: \x80",
    "a character in too many bytes": b"name: \xc0\xaf",
    "half a surrogate pair": b"name: \xed\xa0\x80",
    "zero bytes": bytes(100_000),
    "random bytes": bytes((n * 7919 + n // 256 * 31) % 256 for n in range(65_536)),
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a program": b"\x7fELF" + bytes(100),
    "a byte order mark in the middle": "name: \ufeffa\n\ufeff".encode(),
}
"""What is no text."""


def yaml_values(template: str) -> Contents:
    """A text with each number in the place of `%s`."""
    before, _, after = template.partition("%s")
    return {name: partial(_joined, before, value, after) for name, value in NUMBERS.items()}


def yaml_texts() -> dict[str, bytes]:
    """Whole texts, and bytes that are none."""
    return {name: text.encode("utf-8", "surrogatepass") for name, text in WHOLE.items()} | BYTES


JSON_VALUES: dict[str, str] = {
    "an integer of 6,000 digits": "9" * 6_000,
    "an integer of a million digits": "9" * 1_000_000,
    "a number beyond every float": "1e999999",
    "not a number": "NaN",
    "infinity": "Infinity",
    "a negative number": "-1",
    "2^63": str(2**63),
    "lists, a million deep": "[" * 1_000_000 + "]" * 1_000_000,
    "objects, 100,000 deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "lists, 900 deep": "[" * 900 + "]" * 900,
    "two million empty lists": "[" + "[]," * 2_000_000 + "[]]",
    "three million numbers": "[" + "1," * 3_000_000 + "1]",
    "500,000 keys": "{" + ",".join(f'"{n}":1' for n in range(500_000)) + "}",
    "a text of 15 MB": '"' + "x" * 15_000_000 + '"',
    "half a character": '"\\ud800"',
    "NUL": '"a\\u0000b"',
    "a text that clears the terminal": '"\\u001b[2J"',
    "true": "true",
    "null": "null",
    "an empty text": '""',
}
"""Values of JSON."""

JSON_WHOLE: dict[str, bytes] = {
    "a list": b"[]",
    "a number": b"1",
    "a key twice": b'{"kind":"snapshot","kind":"model"}',
    "an object without keys": b"{}",
    "more bytes behind the end": b"{}{}",
    "UTF-16": "{}".encode("utf-16"),
    "UTF-32": "{}".encode("utf-32"),
    "a byte order mark": "\ufeff{}".encode(),
    "a lone continuation byte": b'{"\x80": 1}',
    "17 MiB": b'{"a":"' + b"x" * (17 * 2**20) + b'"}',
    "cut short": b'{"kind":',
    "zero bytes": bytes(100_000),
    "single quotes": b"{'a': 1}",
    "a comment": b"{} // a",
}


def json_values(value: dict[str, object], place: Callable[[dict[str, object], str], None]) -> Contents:
    """An object of JSON with each value where `place` puts the text `SLOT`."""
    place(value, SLOT)
    text = json.dumps(value)
    slot = json.dumps(SLOT)
    assert slot in text
    before, _, after = text.partition(slot)
    return {name: partial(_joined, before, found, after) for name, found in JSON_VALUES.items()}


def _joined(*parts: str) -> bytes:
    return "".join(parts).encode("utf-8", "surrogatepass")


SLOT = "the value"
