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


if __name__ == "__main__":
    for name, rule in {"lion": lion}.items():
        for tensor, values in zip(("master", "exp_avg"), rule()):
            print(name, tensor, ", ".join(f"{value:.9g}" for value in values))
