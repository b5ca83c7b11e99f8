"""Shapes and dtypes of public arrays are checked in every test."""

from __future__ import annotations

from jaxtyping import install_import_hook

hook = install_import_hook("wamlab", "shapes.shapes_only")
