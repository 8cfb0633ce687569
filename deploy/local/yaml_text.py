"""Python values as YAML, as far as a configuration file needs it: dictionaries, lists, strings, numbers, booleans."""

import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def _lines(value: Any, indent: str) -> str:
    """What follows "key:" or "-"."""
    if isinstance(value, dict) and value:
        return "".join(f"\n{indent}{_scalar(k)}:{_lines(v, indent + '  ')}" for k, v in value.items())
    if isinstance(value, (list, tuple)) and value:
        return "".join(f"\n{indent}-{_item(v, indent + '  ')}" for v in value)
    if isinstance(value, (dict, list, tuple)):
        return " {}" if isinstance(value, dict) else " []"
    return " " + _scalar(value)


def _item(value: Any, indent: str) -> str:
    text = _lines(value, indent)
    # The first key of a dictionary goes on the line of the dash.
    return " " + text[len(indent) + 1:] if isinstance(value, dict) and value else text


def dump(value: dict) -> str:
    """A YAML document. Strings are written so that they are read back as strings."""
    return _lines(value, "").lstrip("\n") + "\n"
