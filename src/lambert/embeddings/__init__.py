"""Sentence vectors of a model, contrastive training for better ones, and scores of how well they find texts."""
