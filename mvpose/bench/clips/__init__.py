"""The paper's comparison on two short clips: the methods that it compares itself with, their training, the tables."""
