"""The recipe of the default bundle: from CTs and seeds to the weights, the figures and the card."""
