"""Small trained-model folders."""

from builders.nnunet_folder import make_model

__all__ = ["make_model"]
