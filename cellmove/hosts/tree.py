"""XML that hypervisors give us, parsed without anything that it might ask for."""

from __future__ import annotations

from lxml import etree

from cellmove.errors import StepFailed


def parsed(text: str, *, blanks: bool = True) -> etree._Element:
    """The root of an XML document; no entity is resolved, no file or network is read for it.

    With `blanks` false, the white space between its elements is left out.

    Raises:
        StepFailed: it is not XML.
    """
    # A parser is made for each: one is not safe in several threads at once.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, remove_blank_text=not blanks
    )
    try:
        return etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise StepFailed(
            "What libvirt says of a guest or of its host is not XML.",
            f"The parser says: {error}.",
            "Look at it with `virsh dumpxml --inactive` and `virsh domcapabilities`.",
        ) from error
