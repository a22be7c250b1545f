"""Tables that anyone can rerun."""
