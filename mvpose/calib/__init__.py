"""Calibrated cameras."""
