"""How numbers are brought to pixels from 0 to 255, by the range that they have."""

import math

DARK = 32  # of 255: images that nowhere get so bright are mostly of another scale
STANDARDISED = 16  # standard deviations, at most
NEAR = 0.05  # of a scale's own limits


def rescaling(name: str, low: float, high: float) -> str:
    """What to do with numbers that are no pixels from 0 to 255.

    Args:
        name: of the variable that holds them.
        low: the least of them.
        high: the largest.

    Example:
        >>> from keras_shared.files.scales import rescaling
        >>> rescaling("x", 0.0, 1.0), rescaling("x", -0.98, 1.0)
        ('Use x * 255.0.', 'Use (x + 1) * 127.5.')
    """
    white = f"(255 / {high:g}) if {high:g} is white"
    middle = 0.5 if low > -0.75 else 1.0  # of 0 to 1 less a half; of -1 to 1
    ways = (  # the first that holds
        (not math.isfinite(high - low), "Replace what is no number first."),
        (low >= 0, f"Use {name} * {'255.0' if high <= 1 else white}."),
        # what resizing adds at an edge
        (low >= -NEAR and 0.5 < high <= 1 + NEAR, f"Use np.clip({name}, 0, 1) * 255."),
        (low > -64 and STANDARDISED < high <= 255, f"Use np.clip({name}, 0, 255)."),
        (
            abs(low + middle) <= NEAR * middle and high <= middle * (1 + NEAR),
            f"Use ({name} + {middle:g}) * {127.5 / middle:g}.",
        ),
        (low >= -128 and STANDARDISED < high <= 127, f"Use {name} + 128.0 if 0 is grey."),
        (
            max(-low, high) <= STANDARDISED,
            "They look standardised: give the pixels as they were before that.",
        ),
        (True, "Give the pixels as a picture file has them."),
    )
    return next(text for holds, text in ways if holds)
