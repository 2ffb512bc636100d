"""Secure aggregation: the server learns sums over clients, and nothing of one alone.

The protocol of Bonawitz et al. (CCS 2017) for a server that is curious but follows it,
in four exchanges a round: keys, shares, training, and seeds to unmask the sum. Up to
a third of the clients may vanish after the
keys. Updates, the weights of the mean, counts of examples and metrics are all in the
sum, so that tables show them of all clients together.

What a single reply would have to be looked at for is excluded: weights made of metrics,
the median and other robust means, clipping by the server, limits on the size of one
update. Clients hold themselves to the latter, and the server checks the mean. So
nothing stops a client that lies, and nothing stops a server that hands out keys of its
own making: clients do not know each other's.
"""
