# The same for calibrated cameras.
_base_ = ["lagformer.py"]
row = "lagformer-rays"
