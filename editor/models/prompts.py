"""Text embeddings. An embedding is one tensor, whatever the model, so that it can be stored, stacked and expanded.

For Stable Diffusion 1.x and 2.x that is the text encoder's last layer, ``(1, L, D)``. Stable Diffusion XL's UNet takes
the last but one layer of two text encoders, side by side, and the pooled embedding of the second; that is one more row,
padded with zeros: ``(1, L + 1, D)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from livedrag.editor.models.loading import Parts
from livedrag.editor.settings import check_prompt


class PromptEncoder:
    """The text encoders of a model and their tokenizers.

    Args:
        parts: of the model.
        device: of the text encoders.
        zeros_for_no_prompt: without words the embedding is zero, instead of that of an empty text.

    Attributes:
        pooled_width: numbers of the pooled embedding; 0 if the model takes none.
    """

    def __init__(self, parts: Parts, device: torch.device, *, zeros_for_no_prompt: bool) -> None:
        self._encoder, self._tokenizer = parts.text_encoder, parts.tokenizer
        self._second, self._second_tokenizer = parts.text_encoder_2, parts.tokenizer_2
        self._device, self._zeros = device, zeros_for_no_prompt
        self.pooled_width = 0 if self._second is None else int(self._second.config.projection_dim)

    @torch.no_grad()
    def embed(self, prompt: str) -> Tensor:
        """Text embedding, ``(1, L, D)`` or ``(1, L + 1, D)``. Raises `SettingsError` if the prompt is not UTF-8."""
        check_prompt(prompt)
        if self._second is None or self._second_tokenizer is None:
            embedding: Tensor = self._encoder(self._tokens(self._tokenizer, self._encoder, prompt)).last_hidden_state
            return embedding
        first = self._encoder(self._tokens(self._tokenizer, self._encoder, prompt), output_hidden_states=True)
        tokens = self._tokens(self._second_tokenizer, self._second, prompt)
        second = self._second(tokens, output_hidden_states=True)
        words = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return torch.cat([words, pad(second.text_embeds, (0, words.shape[-1] - self.pooled_width))[:, None]], dim=1)

    def embed_nothing(self) -> Tensor:
        """What guidance leads away from: the embedding of no words, of the shape that `embed` gives."""
        embedding = self.embed("")
        return torch.zeros_like(embedding) if self._zeros else embedding

    def split(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """The words ``(B, L, D)`` and the pooled embedding ``(B, P)``, if the model takes one."""
        if not self.pooled_width:
            return embedding, None
        return embedding[:, :-1], embedding[:, -1, : self.pooled_width]

    def ignored_part(self, prompt: str) -> str:
        """The end of a prompt that is too long for the text encoder, from the first word that is not read whole on.

        Empty if all of it is read. Raises `SettingsError` if the prompt is not UTF-8.
        """
        check_prompt(prompt)
        tokens = self._tokenizer(prompt, truncation=False, padding=False, return_offsets_mapping=True, verbose=False)
        dropped = tokens["offset_mapping"][_length(self._tokenizer, self._encoder) - 1 : -1]
        if not dropped:
            return ""
        start = dropped[0][0]
        while start > 0 and not prompt[start - 1].isspace():
            start -= 1
        return prompt[start:]

    def _tokens(
        self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection, prompt: str
    ) -> Tensor:
        length = _length(tokenizer, encoder)
        tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(self._device)
        return ids


def _length(tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> int:
    """Tokens that a text encoder takes, with those of start and end."""
    return int(min(tokenizer.model_max_length, encoder.config.max_position_embeddings))
