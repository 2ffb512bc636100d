"""What YAML names: networks, objectives, mixing, metrics, the Separation Brain."""
