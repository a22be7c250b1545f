# IFID's protocol, as many clips as the rows of the comparison have.
clips = 160_000
batch = 128
recipes = [(1.0, dict())]
