"""What jobs do to their hosts: a handful of applications as an operator meets them.

Owns the characters. An application is a function of a job's age that tells its demand; it knows
neither hardware nor metrics. Invariant: every demand is a share between 0 and 1, so that no host is
ever asked for more than it has.

The three traits of a job are what makes one run of an application differ from another.
"""

import math
from collections.abc import Callable, Mapping

from attrs import frozen

__all__ = ["ACCELERATED", "APPLICATIONS", "SINGLE", "USUAL", "Demand", "Traits"]

Traits = tuple[float, float, float]
"""Three numbers in [0, 1)."""

MINUTES = 60.0


@frozen
class Demand:
    """What a job asks of each of its hosts at one moment, as shares of what the host has."""

    threads: float = 0.0
    """Hardware threads that run."""
    flops: float = 0.0
    single: float = 0.0
    """Of the flops: in single precision."""
    bandwidth: float = 0.0
    network: float = 0.0
    read: float = 0.0
    """Of what a host gets from the parallel file system."""
    write: float = 0.0
    wait: float = 0.0
    """Of the running threads: waiting for input or output."""
    memory: float = 0.0
    accelerators: float = 0.0
    imbalance: float = 0.0
    """How much less the last thread has to do than the first."""


Application = Callable[[float, float, Traits], Demand]
"""Takes a job's age and its planned length, both in seconds, and its traits."""


def _dense(age: float, _length: float, traits: Traits) -> Demand:
    """Compute bound: everything happens in the caches."""
    a, b, c = traits
    swing = 0.1 * math.sin(age / (120 + 600 * b))
    return Demand(
        threads=1.0,
        flops=0.4 + 0.35 * a + swing,
        bandwidth=0.12 + 0.15 * b,
        network=0.08 * c,
        memory=0.2 + 0.4 * c,
    )


def _stencil(_age: float, _length: float, traits: Traits) -> Demand:
    """Memory bound: the bandwidth is all that counts."""
    a, b, c = traits
    return Demand(
        threads=1.0,
        flops=0.03 + 0.05 * a,
        bandwidth=0.82 + 0.16 * b,
        network=0.15 + 0.2 * c,
        memory=0.4 + 0.4 * a,
    )


def _climate(age: float, _length: float, traits: Traits) -> Demand:
    """Simulates for a while, then all hosts write, again and again."""
    a, b, c = traits
    period = (6 + 10 * a) * MINUTES
    if age % period > 0.82 * period:
        return Demand(
            threads=1.0, flops=0.02, bandwidth=0.1, network=0.3, write=0.5 + 0.5 * b, wait=0.7, memory=0.5
        )
    return Demand(threads=1.0, flops=0.12 + 0.1 * b, bandwidth=0.45 + 0.3 * c, network=0.2, memory=0.5)


def _molecular(age: float, _length: float, traits: Traits) -> Demand:
    """Bound by communication, in single precision."""
    a, b, c = traits
    beat = 0.5 + 0.5 * math.sin(age / (40 + 80 * a))
    return Demand(
        threads=1.0,
        flops=0.15 + 0.1 * a,
        single=0.9,
        bandwidth=0.2,
        network=0.4 + 0.4 * b * beat,
        memory=0.1 + 0.1 * c,
    )


def _sweep(age: float, length: float, traits: Traits) -> Demand:
    """Many small tasks, badly spread: towards the end fewer and fewer threads have any left."""
    a, b, c = traits
    left = 1.0 - max(0.0, age / length - 0.4)
    return Demand(
        threads=left,
        flops=0.2 + 0.2 * a,
        bandwidth=0.2 + 0.2 * b,
        memory=0.15 + 0.2 * c,
        imbalance=0.5 + 0.45 * a,
    )


def _assembly(age: float, length: float, traits: Traits) -> Demand:
    """Takes more and more memory, until there is none left."""
    a, b, _ = traits
    return Demand(
        threads=0.5 + 0.4 * a,
        flops=0.02,
        bandwidth=0.3 + 0.2 * b,
        read=0.1,
        memory=min(0.99, 0.08 + 0.95 * age / length),
        imbalance=0.3,
    )


def _notebook(age: float, _length: float, traits: Traits) -> Demand:
    """Forgotten: one thread looks from time to time whether somebody is there."""
    a, b, _ = traits
    awake = 0.012 if age % (5 * MINUTES) < 60 * b else 0.0
    return Demand(threads=awake, flops=0.02, bandwidth=0.01, memory=0.03 + 0.05 * a)


def _training(age: float, _length: float, traits: Traits) -> Demand:
    """Epochs on accelerators: load a data set, train, validate, save."""
    a, b, c = traits
    period = (4 + 8 * a) * MINUTES
    at = age % period / period
    memory, held = 0.2 + 0.2 * c, 0.25
    if at < 0.06:
        return Demand(
            threads=0.2,
            flops=0.01,
            bandwidth=0.15,
            read=0.7 + 0.3 * b,
            wait=0.4,
            memory=memory,
            accelerators=0.08,
        )
    if at < 0.88:
        busy = 0.82 + 0.17 * b
        return Demand(
            threads=held,
            flops=0.02,
            single=1.0,
            bandwidth=0.12,
            network=0.3 + 0.3 * c,
            read=0.08,
            memory=memory,
            accelerators=busy,
        )
    if at < 0.97:
        return Demand(threads=0.15, flops=0.01, single=1.0, bandwidth=0.08, memory=memory, accelerators=0.45)
    return Demand(threads=0.1, bandwidth=0.05, write=0.6, wait=0.5, memory=memory, accelerators=0.03)


APPLICATIONS: Mapping[str, Application] = {
    "dense": _dense,
    "stencil": _stencil,
    "climate": _climate,
    "molecular": _molecular,
    "sweep": _sweep,
    "assembly": _assembly,
    "notebook": _notebook,
    "training": _training,
}
USUAL = (
    "dense",
    "dense",
    "stencil",
    "stencil",
    "stencil",
    "climate",
    "climate",
    "molecular",
    "molecular",
    "sweep",
    "sweep",
    "assembly",
    "notebook",
)
"""What runs on hosts without accelerators, as often as it stands here."""
ACCELERATED = ("training", "training", "training", "training", "molecular", "notebook")
"""What runs on hosts with accelerators, likewise."""
SINGLE = ("notebook", "assembly")
"""What never takes more than one host."""
