"""Sections of a YAML file that know where they are, so that each error names the file, the line and the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from gomem.tracer.errors import GomemError

_T = TypeVar("_T")


class WebConfigError(GomemError):
    """The web configuration file, or a file that it names, cannot be used."""


class Section:
    """A mapping of the file, which knows where it is."""

    def __init__(self, path: Path, name: str, node: object) -> None:
        self._path = path
        self._name = name
        self._nodes: dict[str, tuple[object, object]] = {}
        for key, value in self._pairs(node):
            word = self._scalar(key, name or "the file")
            if word in self._nodes:
                raise self._error(key, word, "given twice", "keep one of them")
            self._nodes[word] = (key, value)

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def names(self) -> list[str]:
        """Return the keys."""
        return list(self._nodes)

    def has(self, name: str) -> bool:
        """Whether the key is there."""
        return name in self._nodes

    def _pairs(self, node: object) -> list[tuple[object, object]]:
        import yaml

        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"):
            return []
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, "", "not a mapping", "write `key: value` lines under it")
        return list(node.value)

    def _scalar(self, node: object, name: str) -> str:
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, name, "not a single value", "write one word or one quoted string")
        return "" if node.tag == "tag:yaml.org,2002:null" and not node.style else str(node.value)

    def _error(self, node: object, name: str, what: str, fix: str) -> WebConfigError:
        line = getattr(getattr(node, "start_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        key = ".".join(part for part in (self._name, name[:80]) if part)
        return WebConfigError(f"web configuration {self._path}{where}: {key + ': ' if key else ''}{what}", fix)

    def error(self, name: str, what: str, fix: str) -> WebConfigError:
        """Return an error about one key."""
        return self._error(self._nodes.get(name, (None, None))[0], name, what, fix)

    def known(self, *names: str) -> None:
        """Raise for a key that is none of `names`."""
        for name in self._nodes:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"
                raise self.error(name, "unknown key", fix)

    def section(self, name: str) -> Section:
        """Return the mapping under a key; an empty one if there is none."""
        return Section(self._path, ".".join(filter(None, (self._name, name))), self._nodes.get(name, (None, None))[1])

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a key."""
        if name not in self._nodes:
            return default
        return self._scalar(self._nodes[name][1], name) or default

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the list under a key."""
        import yaml

        node = self._nodes.get(name, (None, None))[1]
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(name, "not a list", "write `- value` lines under it")
        return tuple(self._scalar(item, name) for item in node.value)

    def flag(self, name: str, default: bool) -> bool:
        """Return the truth of a key."""
        word = self.text(name, str(default)).lower()
        if word not in ("true", "false", "yes", "no", "on", "off"):
            raise self.error(name, f"{word!r} is neither true nor false", "write true or false")
        return word in ("true", "yes", "on")

    def choice(self, name: str, choices: Mapping[str, _T], default: str) -> _T:
        """Return what a word stands for."""
        word = self.text(name, default)
        if word not in choices:
            raise self.error(name, f"unknown value {word[:80]!r}", f"one of: {', '.join(choices)}")
        return choices[word]
