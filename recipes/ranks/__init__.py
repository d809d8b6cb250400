"""Several processes: a place among them, what they tell each other, which rows are whose."""
