"""What a rendered person and the world around it look like."""
