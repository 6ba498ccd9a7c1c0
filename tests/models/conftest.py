"""Small trained-model folders."""

from nnunet_folder import make_model

__all__ = ["make_model"]
