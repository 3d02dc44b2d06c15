"""Functions for the tests of graphs, in a module that can be imported, and a way to compute one without a client."""

import headrace


def inc(x):
    return x + 1


def add(*numbers):
    return sum(numbers)


def give(*args, **kwargs):
    """What the function was called with."""
    return args, kwargs


def join(left, right):
    """Associative, and shows in which order it was called."""
    return f"({left}{right})"


def concat(left, right):
    return left + right


@headrace.task(priority=3)
def decorated(x, y=2):
    """Doubled."""
    return x * y


class Model:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, x):
        return self.factor * x

    @headrace.task(priority=1)
    def marked(self, x):
        return -self.factor * x


def evaluate(graph, *wanted):
    """The results of some nodes, or of all tasks, one after the other in this thread."""
    values = {}

    def compute(index):
        open_tasks = [index]
        while open_tasks:
            task = open_tasks[-1]
            missing = [need for need in graph._predecessors(task) if need not in values]
            if missing:
                open_tasks += missing
                continue
            open_tasks.pop()
            if task not in values:
                inputs = [values[need] if isinstance(need, int) else need for need in graph._inputs(task)]
                fn, (args, kwargs) = graph._bind(task, inputs, lambda *args, **kwargs: (args, kwargs))
                values[task] = fn(*args, **kwargs)
        return values[index]

    if not wanted:
        return [compute(index) for index in range(len(graph))]
    found = [compute(node.index) for node in wanted]
    return found[0] if len(found) == 1 else found


def passed(graph, *args, **kwargs):
    """What arrives of arguments that are given to `add`."""
    return evaluate(graph, graph.add(give, *args, **kwargs))
