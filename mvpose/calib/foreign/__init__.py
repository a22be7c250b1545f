"""Calibration formats of other programs: one module a family, each with what is known of its conventions.

A reader takes the parsed document and returns a :class:`~mvpose.calib.draft.Draft`; a writer takes a rig and returns
the text to write.
"""
