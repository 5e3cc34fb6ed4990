"""EPUB books as lines, with the standard library alone: the spine's pages in order, a paragraph a line.

https://www.w3.org/TR/epub-33/. Nothing is unpacked to the disk, and no more of a file is read than its cap.
"""

from __future__ import annotations

import posixpath
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from ..errors import InvalidValue
from .plain import SPEAKER, Paragraph, looks_like_name
from .script import Line, Span

MOST_FILE, MOST_ALL, MOST_FILES = 20_000_000, 200_000_000, 20_000  # bytes of a file and of all, files
# Scrambling of fonts, which does not concern the text.
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
BLOCKS = {"p", "div", "li", "blockquote", "section", "article", "td", "th", "dt", "dd", "figcaption", "pre", "br", "hr"}
SILENT = {"script", "style", "head", "title", "rt", "rp", "nav", "svg", "math"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read_epub(path: Path, names: Collection[str] = ()) -> tuple[list[Line], list[tuple[int, str]]]:
    """(lines, doubts) of a book. Names before a colon count where the cast has them; the rest is the narrator's.

    InvalidValue for what is not an EPUB, is protected, leads out of itself or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            paragraphs = list(_Book(archive, str(path)).paragraphs())
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidValue(f"{path} is not an EPUB that can be read: {error}") from None
    known, lines, scene = {name.casefold() for name in names}, [], False
    doubts: list[tuple[int, str]] = []
    for number, one in enumerate(paragraphs, 1):
        found = SPEAKER.fullmatch(one.text)
        name, text = (found[1], found[2]) if found and found[1].casefold() in known else (None, one.text)
        if found and name is None and not one.heading and looks_like_name(found[1], found[2]):
            doubts.append((number, f"{found[1]!r} before a colon is spoken: the cast has no such name"))
        if any(char.isalnum() for char in text):
            lines.append(Line(number, name, (Span(text),), one.heading, scene))
            scene = False
        else:
            scene = True
    return lines, doubts


class _Book:
    """A book's files, by their names in the archive."""

    def __init__(self, archive: zipfile.ZipFile, title: str) -> None:
        self.archive, self.title, self.read_so_far = archive, title, 0
        self.names = set(archive.namelist())
        if len(self.names) > MOST_FILES:
            raise InvalidValue(f"{title} has {len(self.names)} files; at most {MOST_FILES} are read")
        if "META-INF/container.xml" not in self.names:
            raise InvalidValue(f"{title} is not an EPUB: it has no META-INF/container.xml")
        if "META-INF/rights.xml" in self.names or self._encrypted():
            raise InvalidValue(f"{title} is protected (DRM) and cannot be read")

    def paragraphs(self) -> Iterator[Paragraph]:
        """Those of the pages of the spine, without the table of contents."""
        root = self._xml("META-INF/container.xml")
        found = next((one.get("full-path") for one in root.iter() if _tag(one) == "rootfile"), None)
        if not found:
            raise InvalidValue(f"{self.title} is not an EPUB: its container names no package")
        package = self._xml(self._place("", found))
        items = {one.get("id"): one for one in package.iter() if _tag(one) == "item"}
        for ref in (one for one in package.iter() if _tag(one) == "itemref"):
            item = items.get(ref.get("idref"))
            if item is None:
                raise InvalidValue(f"{self.title}: its spine names {ref.get('idref')!r}, which its manifest has not")
            if "html" in (item.get("media-type") or "") and "nav" not in (item.get("properties") or "").split():
                page = _Page()
                place = self._place(posixpath.dirname(found), urllib.parse.unquote(item.get("href") or ""))
                page.feed(self._text(place))
                page.close()
                yield from page.finish()

    def _place(self, folder: str, href: str) -> str:
        place = posixpath.normpath(posixpath.join(folder, href.partition("#")[0]))
        if place.startswith(("/", "..")) or "\\" in place:
            raise InvalidValue(f"{self.title}: {href!r} leads out of the book")
        if place not in self.names:
            raise InvalidValue(f"{self.title} has no file {place!r}, which it names")
        return place

    def _encrypted(self) -> bool:
        if "META-INF/encryption.xml" not in self.names:
            return False
        kinds = [one.get("Algorithm") for one in self._xml("META-INF/encryption.xml").iter() if "Method" in _tag(one)]
        return not all(kind in FONTS for kind in kinds)

    def _text(self, name: str) -> str:
        with self.archive.open(name) as file:
            data = file.read(MOST_FILE + 1)
        self.read_so_far += len(data)
        if len(data) > MOST_FILE or self.read_so_far > MOST_ALL:
            raise InvalidValue(f"{self.title}: {name} unpacks to more than a book has")
        for encoding in ("utf-16", "utf-8-sig"):
            if encoding != "utf-16" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                try:
                    return data.decode(encoding)
                except UnicodeDecodeError as error:
                    message = f"{self.title}: {name} is neither UTF-8 nor UTF-16 (byte {error.start})"
                    raise InvalidValue(message) from None
        raise AssertionError("utf-8-sig is always tried")

    def _xml(self, name: str) -> ElementTree.Element:
        text = self._text(name)
        if re.search(r"<!ENTITY", text):
            raise InvalidValue(f"{self.title}: {name} defines entities, which are refused")
        try:
            return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
        except ElementTree.ParseError as error:
            raise InvalidValue(f"{self.title}: {name} is not XML: {error}") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


class _Page(HTMLParser):
    """A page's paragraphs. Pages need not be well-formed, and their entities are HTML's."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.made: list[Paragraph] = []
        self.said, self.heading = "", 0
        self.silent: list[str] = []  # tags of SILENT that are open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SILENT:
            self.silent.append(tag)
        elif tag in BLOCKS or tag in HEADINGS:
            self._end()
            self.heading = HEADINGS.get(tag, self.heading)
            if tag == "hr":
                self.made.append(Paragraph(0, None, "*"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in SILENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.silent:
            del self.silent[self.silent.index(tag) :]
        elif tag == "ruby":  # whose readings need not be closed
            self.silent = [one for one in self.silent if one not in ("rt", "rp")]
        elif tag in BLOCKS or tag in HEADINGS:
            self._end()
            self.heading = 0 if tag in HEADINGS else self.heading

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.said += data

    def finish(self) -> list[Paragraph]:
        self._end()
        return self.made

    def _end(self) -> None:
        text = " ".join(self.said.split())
        self.said = ""
        if text:
            self.made.append(Paragraph(0, None, text, self.heading))
