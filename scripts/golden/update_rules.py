#!/usr/bin/env python3
"""Twenty updates of each rule in plain Python, double precision: the numbers that tests/unit/optim compares with.

Prints one line a rule and tensor, to be pasted into the test that names this script. Nothing but the standard library: the formulas
are written out from the papers, not taken from another implementation.
"""
import math

STEPS, ELEMENTS = 20, 8
LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2 = 1e-2, 0.1, 0.9, 0.99


def start(i):
    return math.cos(i)


def gradient(step, i):
    return math.sin(0.7 * i + 0.3 * step) * (i + 1) / 8


def lion():
    """Chen et al., 2023, program 1."""
    p = [start(i) for i in range(ELEMENTS)]
    m = [0.0] * ELEMENTS
    for step in range(1, STEPS + 1):
        for i in range(ELEMENTS):
            g = gradient(step, i)
            c = BETA1 * m[i] + (1 - BETA1) * g
            p[i] -= LEARNING_RATE * (math.copysign(1.0, c) + WEIGHT_DECAY * p[i])
            m[i] = BETA2 * m[i] + (1 - BETA2) * g
    return p, m


ROWS, COLUMNS, MOMENTUM = 4, 6, 0.95


def product(a, b):
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def transpose(a):
    return [list(column) for column in zip(*a)]


def combine(*terms):
    """Sum of (factor, matrix)."""
    return [[sum(factor * matrix[i][j] for factor, matrix in terms) for j in range(len(terms[0][1][0]))] for i in range(len(terms[0][1]))]


def newton_schulz(g, steps=5):
    """Jordan et al., 2024: x -> a x + b x^3 + c x^5 on the singular values of g / |g|; of the transposed where g stands."""
    if len(g) > len(g[0]):
        return transpose(newton_schulz(transpose(g), steps))
    norm = math.sqrt(sum(x * x for row in g for x in row)) + 1e-7
    x = [[value / norm for value in row] for row in g]
    for _ in range(steps):
        a = product(x, transpose(x))
        x = combine((3.4445, x), (1.0, product(combine((-4.7750, a), (2.0315, product(a, a))), x)))
    return x


def matrix_gradient(step, i):
    return math.sin(0.7 * i + 0.11 * i * i + 0.3 * step)


def muon(nesterov=True, rows=ROWS, columns=COLUMNS):
    """Jordan et al., 2024, with the scale of Liu et al., 2025; the momentum is a mean, as in torch.optim.Muon."""
    p = [[start(i * columns + j) for j in range(columns)] for i in range(rows)]
    m = [[0.0] * columns for _ in range(rows)]
    scale = 0.2 * math.sqrt(max(rows, columns))
    for step in range(1, STEPS + 1):
        g = [[matrix_gradient(step, i * columns + j) for j in range(columns)] for i in range(rows)]
        m = combine((MOMENTUM, m), (1 - MOMENTUM, g))
        direction = combine((MOMENTUM, m), (1 - MOMENTUM, g)) if nesterov else m
        p = combine((1 - LEARNING_RATE * WEIGHT_DECAY, p), (-LEARNING_RATE * scale, newton_schulz(direction)))
    return [x for row in p for x in row], [x for row in m for x in row]


if __name__ == "__main__":
    rules = {"lion": (lion, ("master", "exp_avg")),
             "muon": (muon, ("master", "momentum_buffer")),
             "muon, standing": (lambda: muon(rows=COLUMNS, columns=ROWS), ("master", "momentum_buffer")),
             "muon without nesterov": (lambda: muon(nesterov=False), ("master", "momentum_buffer"))}
    for name, (rule, tensors) in rules.items():
        for tensor, values in zip(tensors, rule()):
            print(name, tensor, ", ".join(f"{value:.9g}" for value in values))
