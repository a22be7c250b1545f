"""Calibrations in XML, told apart by what they hold: Qualisys and Vicon."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from mvpose.calib.draft import Draft
from mvpose.calib.foreign.qualisys import read_qualisys
from mvpose.calib.foreign.vicon import read_vicon
from mvpose.errors import CalibrationError


def read_xml(text: str) -> Draft:
    """Read Qualisys's ``.qca.txt`` or Vicon's ``.xcp``.

    Raises:
        CalibrationError: It is neither, or a value is missing or wrong.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise CalibrationError("holds XML entities, which no calibration does")
    try:
        # The declared encoding is about the bytes, which have been decoded already.
        root = ET.fromstring(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text))
    except (ET.ParseError, ValueError) as error:
        raise CalibrationError(f"is not valid XML ({error})") from None
    if root.tag == "calibration" or root.find(".//calibration") is not None:
        return read_qualisys(root)
    if root.tag == "Cameras" and root.find("Camera") is not None:
        return read_vicon(root)
    raise CalibrationError("this XML is no calibration that mvpose knows (Qualisys's .qca.txt, Vicon's .xcp)")
