"""A random order of the rows that can be computed at any position, without holding the order in memory.

Batches must be a pure function of (seed, step), so that a resumed run reads exactly the rows that an uninterrupted
one would. A stored permutation of 10^9 rows takes 8 GB; permuting blocks of rows leaves neighbouring tokens of one
text together in a batch. So each epoch has its own keyed permutation of single rows: a Feistel network over pairs
(l, r) of digits in base m = ceil(sqrt(n)), which is a bijection of [0, m^2), with cycle walking for the few values
>= n (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
"""

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.uint64]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def rows_for_step(*, seed: int, step: int, batch_size: int, rows: int, stream: int = 0) -> Indices:
    """Return the rows of one batch, shape [batch_size], sorted so that a disk is read forwards.

    Every row comes once in an epoch; a batch may reach over the end of one. ``stream`` gives further, unrelated
    orders of the same data.
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size, dtype=np.uint64)
    epochs = positions // np.uint64(rows)
    parts = [
        permute(positions[epochs == epoch] % np.uint64(rows), rows, key=_key(seed, stream, int(epoch)))
        for epoch in np.unique(epochs)
    ]
    return np.sort(np.concatenate(parts))


def permute(positions: Indices, size: int, *, key: int) -> Indices:
    """Map distinct positions in [0, size) to distinct values in [0, size)."""
    base = np.uint64(math.isqrt(size - 1) + 1) if size > 1 else np.uint64(1)
    result = _feistel(positions, base, key)
    while (outside := result >= np.uint64(size)).any():
        result[outside] = _feistel(result[outside], base, key)
    return result


def _feistel(values: Indices, base: np.uint64, key: int) -> Indices:
    left, right = values // base, values % base
    for number in range(_ROUNDS):
        round_key = np.uint64(_splitmix(key + number * _GOLDEN))
        left, right = right, (left + _mix(right ^ round_key) % base) % base
    return left * base + right


def _mix(values: Indices) -> Indices:
    """Finaliser of splitmix64 (Steele et al. 2014): wraps at 2^64 as it should."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _splitmix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _key(seed: int, stream: int, epoch: int) -> int:
    return _splitmix(_splitmix(_splitmix(seed) ^ stream) ^ epoch)
