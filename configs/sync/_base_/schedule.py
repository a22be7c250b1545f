# What all rows of the comparison share: IFID's protocol, so many clips.
clips = 160_000
batch = 128
recipes = [(1.0, dict())]
