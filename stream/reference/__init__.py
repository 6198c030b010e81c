"""What a model's stream is compared with, and since when: the history of its references."""
