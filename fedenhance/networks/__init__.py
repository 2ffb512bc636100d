"""Networks: encoders, mask networks and decoders, and the separator that they make."""
