"""The clients' learning rate by round, as a function of what has happened so far.

A schedule is called with the round, from 1, and the rows of rounds.csv before it. It
has no state of its own, so that a run that goes on takes up the same rates.
"""


def divide(server_round, rows, lr, patience, divide_lr_by):
    """Divides the learning rate every ``patience`` rounds, as FedEnhance does.

    Arguments
    ---------
    server_round : int
        From 1.
    rows : list of dict
        Not used.
    lr : float
        At first.
    patience : int
        Rounds with the same rate; 0: it stays what it is.
    divide_lr_by : float

    Returns
    -------
    float

    Example
    -------
    >>> [divide(r, [], lr=9.0, patience=2, divide_lr_by=3) for r in (1, 2, 3, 5)]
    [9.0, 9.0, 3.0, 1.0]
    """
    return lr / divide_lr_by ** ((server_round - 1) // patience) if patience else lr


def by_round(server_round, rows, scheduler):
    """Asks a SpeechBrain scheduler that is called with the epoch: here, the round.

    Arguments
    ---------
    server_round : int
        From 1.
    rows : list of dict
        Not used.
    scheduler : callable
        Makes the scheduler, for instance
        ``!name:speechbrain.nnet.schedulers.LinearScheduler``.

    Returns
    -------
    float
    """
    scheduler, lr = scheduler(), None
    for epoch in range(1, server_round + 1):
        # It returns the rate of this epoch and that of the next.
        lr, _ = scheduler(epoch)
    return lr


def by_metric(server_round, rows, scheduler, key="valid_loss"):
    """Asks a SpeechBrain scheduler that is called with a metric: NewBobScheduler.

    Arguments
    ---------
    server_round : int
        From 1.
    rows : list of dict
        Those without the metric are passed over.
    scheduler : callable
        Makes the scheduler; it must have the attribute ``hyperparam_value``.
    key : str
        The metric.

    Returns
    -------
    float
    """
    scheduler = scheduler()
    lr = scheduler.hyperparam_value
    for row in rows:
        if key in row:
            _, lr = scheduler(row[key])
    return lr
