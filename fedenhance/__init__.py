"""Federated speech enhancement: networks, objectives, training, trained models.

Three lines enhance a signal::

    import fedenhance
    model = fedenhance.load("results/fedenhance/1234")
    clean = model.enhance(audio, sample_rate)
"""


def load(name=None, device="cpu", trust=False):
    """Load a trained model.

    Arguments
    ---------
    name : str or Path, optional
        An output folder of ``train.py``, its package, the name of a model that comes
        along, or ``hf:user/model``; the first model that comes along by default.
    device : str
        Where it goes.
    trust : bool
        Whether it may run code that is not of fedenhance.

    Returns
    -------
    fedenhance.deploy.trained.Trained
        Its ``enhance(audio, sample_rate)`` takes noise out of a signal.
    """
    from fedenhance.deploy.trained import load_trained

    return load_trained(name, device, trust)
