"""3D skeletons from several ordinary cameras that nothing synchronises."""

__version__ = "0.1.0"
