"""How much of what lies in files is read: every limit is kept before memory is taken."""

MOST_TEXT = 50_000_000  # bytes of a file of text or JSON: a history, facts
MOST_RECIPE = 2_000_000  # bytes of a recipe, which may hold a vocabulary
MOST_DEPTH = 32  # of a key in it
MOST_CORPUS = 200_000_000  # bytes of a text to train on, which is held in memory
MOST_PICTURE = 500_000_000  # bytes of a picture
MOST_PIXELS = 100_000_000  # of it, when it is decoded
MOST_ARRAY = 1_000_000_000  # bytes of the values of a .npy file
MOST_ARRAY_HEADER = 10_000  # bytes, as in NumPy
MOST_DIRECTORY = 1_000_000  # bytes of the list of an archive's parts: some 10,000 parts
MOST_INFLATION = 20  # times their own size that its parts may declare; trained weights reach 2
MOST_CONFIG = 10_000_000  # bytes of a model's config; nets of 2,000 layers have one million
MOST_WEIGHTS_HEADER = 10_000_000  # bytes, of safetensors; 2,000 layers need less than a million
