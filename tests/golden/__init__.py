"""Short trainings whose results with ten seeds are recorded, and tests that other seeds learn as well."""
