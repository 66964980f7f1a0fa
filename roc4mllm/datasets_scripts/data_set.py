"""What a data set's file has to say: how its rows are read, its divisions, and what its card states."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .raw_folder import RawFolder
from .raw_tables import RawRow
from .schema import Row

Reader: TypeAlias = Callable[[RawFolder, str], Iterator[RawRow]]


@dataclass(frozen=True)
class DataSet:
    """
    A data set and how to read it.

    Args:
        name (`str`):
            What the command calls it, and what stands in the column `source`.
        title (`str`):
            What its authors call it.
        read (callable):
            Raw folder and protocol to raw rows, with their `split` joined to them: all input, no conversion.
        row (callable):
            Fields of a raw row to a row of the schema: all conversion, no input. A row outside of the protocol is
            `None`.
        protocols (`dict[str, str]`):
            Names of the divisions, the usual one first, and what each is. Numbers of two are not comparable.
        score (`str`):
            What the score is, and its range.
        homepage, terms, citation (`str`):
            Where it comes from, on which terms, and who made it.
        may_be_shared (`bool`, *optional*, defaults to `False`):
            Whether its terms let others pass on pictures and ratings.
        license (`str`, *optional*, defaults to `"other"`):
            What the Hub calls its licence.
        notes (`tuple[str, ...]`, *optional*):
            What a user of it has to know.
        pictures_of (`str`, *optional*, defaults to `name`):
            Whose names its pictures have: data sets that drew from one pool share names, and may share pictures.
        prefer (`tuple[str, ...]`, *optional*):
            Folders that win where a picture lies in several.
    """

    name: str
    title: str
    read: Reader
    row: Callable[[dict[str, Any]], Row | None]
    protocols: Mapping[str, str]
    score: str
    homepage: str
    terms: str
    citation: str
    may_be_shared: bool = False
    license: str = "other"
    notes: tuple[str, ...] = ()
    pictures_of: str = ""
    prefer: tuple[str, ...] = field(default=())

    def protocol(self, name: str | None) -> str:
        """
        The protocol of a name, with or without the data set's before it; the usual one by default.

        Raises:
            ValueError: If there is none of that name.
        """
        if name is None:
            return next(iter(self.protocols))
        short = name.removeprefix(f"{self.name}-")
        if short not in self.protocols:
            known = "; ".join(f"{key} ({text})" for key, text in self.protocols.items())
            raise ValueError(f"{self.title} has no protocol {name!r}; it has {known}.")
        return short

    def protocol_name(self, protocol: str) -> str:
        """What stands in the column `split_protocol`."""
        return f"{self.name}-{protocol}"


__all__ = ["DataSet"]
