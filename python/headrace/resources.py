"""What a client's workers offer to tasks: resources by amount, tags by limit, GPUs by number."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from headrace._core import Offer
from headrace.errors import UsageError
from headrace.options import amounts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The resource that belongs to single workers, from their start.
GPU = "gpu"

#: The resource that every machine has.
MEMORY = "memory"

#: What tells a process which GPUs are its own.
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


class Offered(NamedTuple):
    """What the workers of a client offer."""

    offer: Offer
    environments: list[list[tuple[str, str]]]
    """What each worker has in its environment besides."""


def offered(
    resources: Mapping[str, object] | None,
    limits: Mapping[str, int] | None,
    *,
    workers: int,
    spares: int,
    processes: bool,
    env: Mapping[str, str] | None,
    machines: bool = False,
    grows: bool = False,
) -> Offered:
    """Give what tasks of a client may ask for.

    Args:
        resources: amounts by name; memory is what this machine has, unless it is given.
        limits: by tag, how many workers may run tasks of that tag at once.
        workers: how many there are.
        spares: how many more may stand in for them; these have no GPUs.
        processes: whether they are processes; else GPUs are counted like anything.
        env: environment variables for the workers, on top of this process's own.
        machines: whether workers of other machines may come; memory is each machine's own then.
        grows: whether these may have what nobody has now, so that who asks for it waits.

    Raises:
        UsageError: an argument is not of that form, or more GPUs are named than may be seen.
    """
    amounts = {MEMORY: total_memory(), **amounts_of("Client(resources=…)", resources or {})}
    owned: list[tuple[str, list[int]]] = []
    environments: list[list[tuple[str, str]]] = []
    if processes and GPU in amounts:
        names = gpu_names(amounts.pop(GPU), {**os.environ, **(env or {})}.get(GPU_VARIABLE))
        shares = [names[worker::workers] for worker in range(workers)]
        owned.append((GPU, [len(share) for share in shares]))
        environments = [[(GPU_VARIABLE, ",".join(share))] for share in [*shares, *([[]] * spares)]]
    own = [(MEMORY, amounts.pop(MEMORY))] if machines else []
    offer = Offer(list(amounts.items()), list(checked_limits(limits or {}).items()), owned, own, grows)
    return Offered(offer, environments)


def of_machine(resources: Mapping[str, object] | None) -> list[tuple[str, int]]:
    """Give what a machine has for the workers of its agent, memory included.

    Raises:
        UsageError: an argument is not of that form.
    """
    return list({MEMORY: total_memory(), **amounts_of("--resource", resources or {})}.items())


def checked_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """Give the limits of tags.

    Raises:
        UsageError: they do not map names to whole numbers above 0.
    """
    amounts = amounts_of("Client(limits=…)", limits)
    for name, limit in amounts.items():
        if limit == 0:
            raise UsageError(f"Client(limits=…): {name!r}: with a limit of 0 no such task could ever run")
    return amounts


def gpu_names(count: int, visible: str | None) -> list[str]:
    """Give the names of so many GPUs: those that the environment lets be seen, in that order, or numbers from 0.

    Raises:
        UsageError: fewer may be seen.
    """
    if visible is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if count > len(names):
        raise UsageError(
            f"Client(resources={{'{GPU}': {count}}}): {GPU_VARIABLE}={visible!r} lets only {len(names)} be seen; ask "
            "for fewer, or change the variable, in the environment or by env="
        )
    return names[:count]


def total_memory() -> int:
    """Give the bytes of memory that this process's control group may use, or that the machine has."""
    from headrace.limits import group_limits

    with open("/proc/meminfo", encoding="ascii") as lines:
        total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    return min(total, *group_limits())
