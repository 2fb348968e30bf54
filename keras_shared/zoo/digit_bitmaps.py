"""The stylised digits, 7 pixels wide and 12 high, that are the RBF centers of LeNet-5.

After figure 3 of LeCun, Bottou, Bengio, Haffner 1998, as its transcriptions in public have it
(the bar above some digits included); the paper prints the picture, not the numbers.
"""

import numpy as np

_ROWS = """
.#####.  ...##..  .#####.  #######  .#####.  .#####.  ..####.  #######  .#####.  .#####.
.......  ..###..  .......  .....##  .......  .......  .##....  .....##  ##...##  ##..###
..###..  .####..  .#####.  ....##.  .......  #######  ##.....  .....##  ##...##  ##...##
.##.##.  ...##..  ##...##  ...##..  .##..##  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  #....##  ..####.  .##..##  ##.....  ######.  ...##..  .#####.  ##..###
##...##  ...##..  ....##.  .....##  ###..##  .####..  ###..##  ...##..  ##...##  .######
##...##  ...##..  ..###..  .....##  ##...##  ..####.  ##...##  ..##...  ##...##  .....##
##...##  ...##..  .##....  .....##  ##...##  .....##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  ##..###  ##...##  ###..##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  .######  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
"""


def digit_bitmaps() -> np.ndarray:
    """The ten bitmaps as (10, 84) numbers, ink +1 and paper -1, row by row.

    Example:
        >>> from keras_shared.zoo.digit_bitmaps import digit_bitmaps
        >>> digit_bitmaps().shape
        (10, 84)
    """
    rows = [line.split() for line in _ROWS.split("\n") if line]  # 12 rows of 10 digits
    pixels = np.array([["".join(digit)] for digit in zip(*rows, strict=True)])
    return np.array([[1.0 if p == "#" else -1.0 for p in digit[0]] for digit in pixels], "float32")
