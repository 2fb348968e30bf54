"""Colours that stay apart for colour-blind readers."""

# Okabe & Ito 2008, "Color Universal Design"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
