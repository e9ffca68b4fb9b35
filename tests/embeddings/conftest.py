"""The models of these tests."""

from tests.embeddings.models import folder as folder
