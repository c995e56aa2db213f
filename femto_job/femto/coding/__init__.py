"""What happens to one tile. Its loops are compiled, see `kernels`.

In the order in which they are met: `blocks` (colour, planes and their cosine transforms),
`partition` (which blocks, and of what `classes`), `contexts` (where their scores stand, and what is
known of each before it is coded), `kstrings` (scores become strings: `model` and `equations` give
the probabilities, `entropy` the bytes), `restore` (what decoding smooths).
"""
