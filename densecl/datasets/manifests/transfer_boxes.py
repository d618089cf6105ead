"""Read the boxes of an image from an annotation in the XML of VOC."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.parsers import expat

from densecl.datasets.storage.image_root import read_file

MAX_BYTES = 2**20  # of the annotation of one image; VOC's have some kB
ROOT, OBJECT = "annotation", "object"
XML_ERRORS = (OSError, ET.ParseError, expat.ExpatError, ValueError, LookupError)

Box = tuple[str, float, float, float, float]  # class, x0, y0, x1, y1: x0 <= x < x1 in pixels


def read_boxes(path: Path, width: int, height: int) -> tuple[list[Box], str]:
    """Boxes of an annotation, and its problem, also if it is of an image of another size. VOC
    counts pixels from 1 and includes the last.
    """
    try:
        tree = _parse(read_file(path))
        boxes = [_parse_object(item) for item in tree.iter(OBJECT)]
    except XML_ERRORS as error:
        return [], f"boxes: not an annotation of VOC ({' '.join(str(error).split())[:80]})"
    size = tuple(_parse_length(tree, name) for name in ("width", "height"))
    if all(size) and size != (width, height):
        return boxes, f"boxes: {describe_size(size, (width, height))}, by <size>"
    return boxes, ""


def describe_size(found: tuple[float, ...], image: tuple[int, int]) -> str:
    """How a width and height differ from those of the image, in few words: reasons are counted."""
    if list(found) == list(reversed(image)):
        return "of the image on its side; expected its pixels as stored, without EXIF's turn"
    return "of another size than the image"


def _parse(content: bytes) -> ET.Element:
    if len(content) > MAX_BYTES:
        raise ValueError("found more than 1 MB")
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _refuse_entity
    parser.Parse(content, True)
    tree = ET.fromstring(content)  # noqa: S314 - without entities nothing expands
    if tree.tag != ROOT:
        raise ValueError(f"found <{tree.tag}>, expected <{ROOT}>")
    for item in tree.iterfind(f".//{{*}}{OBJECT}"):  # of any namespace or none
        if item.tag != OBJECT:
            raise ValueError(f"found <{item.tag}>, expected <{OBJECT}>")
    return tree


def _refuse_entity(*_: object) -> None:
    raise ValueError("found an entity, expected none")


def _parse_length(tree: ET.Element, name: str) -> float:
    """Of the image as the annotation has it, 0 if it has none."""
    try:
        return float(tree.findtext(f"size/{name}") or 0)
    except ValueError:
        return 0


def _parse_object(item: ET.Element) -> Box:
    box = item.find("bndbox")
    if box is None:
        raise ValueError("an object without bndbox")
    x0, y0, x1, y1 = (
        float(box.findtext(name, "missing")) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    if not (x0 <= x1 and y0 <= y1 and all(map(math.isfinite, (x0, y0, x1, y1)))):
        raise ValueError(f"a box from {x0:g}, {y0:g} to {x1:g}, {y1:g}")
    return (item.findtext("name", ""), x0 - 1, y0 - 1, x1, y1)
