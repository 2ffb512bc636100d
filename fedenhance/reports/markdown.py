"""Tables in GitHub-flavoured Markdown."""

from statistics import fmean, stdev


def table(header, rows):
    """A table of text.

    Arguments
    ---------
    header : sequence of str
    rows : iterable of sequence
        The cells of a row each, as they are to be read.

    Returns
    -------
    str
        Without a newline at its end.

    Example
    -------
    >>> print(table(["a", "b"], [[1, "x"]]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)


def spread(values):
    """Mean, and standard deviation where there is one.

    Example
    -------
    >>> spread([1.0, 3.0]), spread([2.0])
    ('2.00 ± 1.41', '2.00')
    """
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation}"
