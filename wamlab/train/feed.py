"""Training data by stage, read ahead in a thread."""

from __future__ import annotations

from collections.abc import Mapping

from wamlab.data.latents import open_latents, stand_in_latents
from wamlab.data.mixture import Loader, Mixture
from wamlab.models.base import Stage, WorldActionModel
from wamlab.nn.codec import Codec
from wamlab.types import Batch


class Feed:
    """The batches of each stage's mixture; consecutive steps are read ahead.

    A jump to another step or stage (a resumed run, a measurement) starts a new reader there, so
    that what comes is a function of (step, stage) whatever was asked before.
    """

    def __init__(self, mixtures: Mapping[str, Mixture], ahead: int = 2) -> None:
        self.mixtures, self.ahead = dict(mixtures), ahead
        self._loader: Loader | None = None
        self._next: tuple[str, int] | None = None

    def batch(self, step: int, stage: str) -> Batch:
        if self._loader is None or self._next != (stage, step):
            self.close()
            self._loader = Loader(self.mixtures[stage], step, ahead=self.ahead)
        self._next = (stage, step + 1)
        return next(self._loader)

    def shares(self, stage: str) -> dict[str, float]:
        """The share of the rows drawn that may teach each role in this stage."""
        return self.mixtures[stage].shares()

    def serve_latents(
        self, stage: Stage, model: WorldActionModel, *, stand_in: bool = False
    ) -> None:
        """Where a stage sees frames through a frozen codec, let its batches hold codes instead.

        With ``stand_in`` these are not the frames' own: enough to measure a step.
        """
        if stage.codec is None:
            return
        codec = model.get_submodule(stage.codec)
        assert isinstance(codec, Codec), f"{stage.codec} of {model.name} is no codec"
        self.close()
        codes = stand_in_latents if stand_in else open_latents
        for windows in self.mixtures[stage.name].windows:
            windows.serve_latents(codes(windows.cache, codec))

    def close(self) -> None:
        """Stop reading ahead; the next batch starts a new reader."""
        if self._loader is not None:
            self._loader.close()
        self._loader = self._next = None

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
