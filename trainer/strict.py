"""What all config classes have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict


class Strict:
    """Makes pydantic refuse unknown keys in the dataclass that inherits it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
