"""What training minimises, and the consistency of estimates with their mixture."""
