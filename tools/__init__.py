"""Scripts that set the project up."""
