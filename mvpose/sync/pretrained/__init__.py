"""The weights that ship, as safetensors; MODEL_CARD.md says what they are and how they were made."""

from pathlib import Path

WEIGHTS = Path(__file__).parent
"""The folder: ``insynformer.safetensors`` and ``insynformer-rays.safetensors``."""
