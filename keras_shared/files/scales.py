"""How numbers are brought to pixels from 0 to 255, by the range that they have."""

import math

DARK = 32  # of 255: images that nowhere get so bright are mostly of another scale
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
        ('Use x * 255.', 'Use (x + 1) * 127.5.')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "Replace what is no number first."
    if low >= 0:
        white = f"(255 / {high:g}) if {high:g} is white"
        return f"Use {name} * {'255' if high <= 1 else white}."
    if low >= -NEAR and 0.5 < high <= 1 + NEAR:  # what resizing adds at an edge
        return f"Use np.clip({name}, 0, 1) * 255."
    for middle in (0.5, 1.0):  # 0 to 1 less a half; -1 to 1
        if abs(low + middle) <= NEAR * middle and high <= middle * (1 + NEAR):
            return f"Use ({name} + {middle:g}) * {127.5 / middle:g}."
    if -128 <= low < -1 and 16 < high <= 127:
        return f"Use {name} + 128 if 0 is grey."
    standardised = max(-low, high) <= 16  # standard deviations, at most
    said = "They look standardised: give the pixels as they were before that."
    return said if standardised else "Give the pixels as a picture file has them."
