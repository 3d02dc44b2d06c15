"""Two curves of time against size, where they cross, and their drawing."""

import math
import statistics
from dataclasses import dataclass, field

KIB = 1 << 10
MIB = 1 << 20


@dataclass
class Curves:
    """What hand-overs of one shape took, in frames and in blocks, in turn."""

    shape: str
    inline_s: dict[int, list[float]] = field(default_factory=dict)
    block_s: dict[int, list[float]] = field(default_factory=dict)

    def ratios(self, size: int) -> list[float]:
        """How many times faster the block was, pair by pair."""
        return [frame / block for frame, block in zip(self.inline_s[size], self.block_s[size], strict=True)]

    def crossing(self) -> float | None:
        """The size in bytes from which on the block is faster; nothing if it is so for no size.

        Read off between the last size at which it is slower and the next, on logarithmic scales.
        """
        sizes = sorted(self.inline_s)
        logs = [math.log(statistics.median(self.ratios(size))) for size in sizes]
        slower = [place for place, log in enumerate(logs) if log < 0]
        if not slower:
            return sizes[0]
        last = slower[-1]
        if last == len(sizes) - 1:
            return None
        return sizes[last] * (sizes[last + 1] / sizes[last]) ** (logs[last] / (logs[last] - logs[last + 1]))


def draw(curves, path, subtitle):
    """Draw a panel for each of four pairs of curves. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same file, and its words stay words.
    mpl.rcParams.update({"svg.hashsalt": "crossover", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    for panel, pair in zip(panels.flat, curves, strict=True):
        lines = ("in the frame", "#b45309", pair.inline_s), ("in a block", "#1d4ed8", pair.block_s)
        for name, colour, seconds in lines:
            middle = [statistics.median(seconds[size]) * 1e3 for size in seconds]
            panel.plot(list(seconds), middle, marker="o", markersize=3, color=colour, label=name)
        crossing = pair.crossing()
        if crossing is not None:
            panel.axvline(crossing, color="#6b7280", linestyle="--", label=f"cross at {size_text(crossing)}")
        panel.set(xscale="log", yscale="log", title=pair.shape)
        ticks = [KIB, 16 * KIB, 256 * KIB, 4 * MIB, 64 * MIB]
        panel.set_xticks(ticks, [size_text(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.supxlabel("size of the value")
    figure.supylabel("milliseconds a hand-over (median)")
    figure.suptitle(subtitle, fontsize=8, color="#4b5563")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def size_text(size):
    """A size in bytes, for people."""
    return f"{size / MIB:.3g} MiB" if size >= MIB else f"{size / KIB:.3g} KiB"
