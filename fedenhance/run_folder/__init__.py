"""What ``fed/`` and ``fedenhance/`` both keep in a run's folder, and how it is kept."""
