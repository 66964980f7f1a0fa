"""
Processor of mPLUG-Owl2: pictures, and a conversation with `<|image|>` where each picture stands.

The text between two pictures is tokenised by itself, and the image tokens of a picture stand between the pieces, as
the weights were trained. Tokenising the whole text at once gives other ids: a piece begins with the word mark "▁".
"""

from transformers import AddedToken, BatchFeature, LlamaTokenizer, ProcessorMixin
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

IMAGE_TOKEN = "<|image|>"
# The conversation "v1" of Vicuna: sides end with a space, and what the assistant said with `</s>`.
CHAT_TEMPLATE = """\
{%- macro words(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {{- '<|image|>\\n' if part['type'] == 'image' else part['text'] -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if messages[0]['role'] == 'system' -%}
    {{- words(messages[0]['content']) + ' ' -}}
    {%- set messages = messages[1:] -%}
{%- else -%}
    {{- "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
detailed, and polite answers to the user's questions. " -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- 'USER: ' + words(message['content']) + ' ' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- 'ASSISTANT: ' + words(message['content']) + eos_token -}}
    {%- else -%}
        {{- raise_exception('Roles are user and assistant, and system at the beginning; got ' + message['role']) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'ASSISTANT:' -}}
{%- endif -%}
"""
PADDING = {"padding", "max_length", "pad_to_multiple_of", "padding_side", "return_attention_mask"}
UNREAD = {"verbose", "return_tensors"}


class MPLUGOwl2Processor(ProcessorMixin):
    """
    Args:
        image_processor ([`MPLUGOwl2ImageProcessor`]): Prepares pictures.
        tokenizer ([`~transformers.LlamaTokenizer`]): Gets `<|image|>` as a special token, unless it has it.
        num_image_tokens (`int`, *optional*, defaults to 65): Image tokens of a picture: the queries of the visual
            abstractor, and the end vector.
        chat_template (`str`, *optional*): Template of a conversation; that of the authors by default.
    """

    def __init__(self, image_processor=None, tokenizer=None, num_image_tokens: int = 65, chat_template=None):
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.num_image_tokens = num_image_tokens
        self.image_token = IMAGE_TOKEN
        if IMAGE_TOKEN not in tokenizer.get_added_vocab():
            tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token
        if isinstance(tokenizer, LlamaTokenizer):
            # It decides what follows a special token. transformers 5.23 reads it from the saved config but does not
            # write it there.
            tokenizer.init_kwargs["legacy"] = tokenizer.legacy

    def __call__(self, images=None, text: str | list[str] | None = None, **kwargs) -> BatchFeature:
        """
        Args:
            images (one picture, a list or a list of lists, *optional*): All in reading order, or a list for each text.
            text (`str` or `list[str]`, *optional*): With one `<|image|>` for each picture.
            **kwargs: Of tokenizer and image processor: `add_special_tokens`, `padding`, `padding_side`, `max_length`
                (of padding), `pad_to_multiple_of`, `return_attention_mask`, `return_tensors`, `size`, ….

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` `(batch_size, length)`, with `num_image_tokens` image
            tokens for each picture, and `pixel_values` `(num_images, 3, height, width)`, each where it applies.

        Raises:
            ValueError: If pictures and `<|image|>` do not match, or an option of the tokenizer cannot be had here. The
                model itself cannot refuse on an accelerator, which it never waits for.
        """
        if isinstance(images, list | tuple) and all(isinstance(row, list | tuple) and not row for row in images):
            images = None
        images, text, *_ = self.prepare_inputs_layout(images=images, text=text)
        self.validate_inputs(images=images, text=text)
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        data = {}
        if text is not None:
            data |= self._tokenize(text, **options["text_kwargs"])
        if images is not None:
            data |= self.image_processor(images, **options["images_kwargs"])
        return BatchFeature(data, tensor_type=options["text_kwargs"].get("return_tensors"))

    def validate_inputs(self, images=None, text=None, **kwargs):
        """Refuse pictures that do not match the `<|image|>` of their texts."""
        super().validate_inputs(images=images, text=text, **kwargs)
        if text is None or not isinstance(images, list | tuple) or not isinstance(images[0], list | tuple):
            return
        given, marked = [len(row) for row in images], [sample.count(IMAGE_TOKEN) for sample in text]
        if given != marked:
            raise ValueError(f"Got lists of {given} pictures for texts with {marked} {IMAGE_TOKEN} tokens.")

    def _tokenize(self, text, add_special_tokens: bool = True, **options) -> dict:
        """Ids and mask of each text."""
        wanted = {name for name, value in options.items() if value not in (None, False)}
        if unknown := sorted(wanted - PADDING - UNREAD):
            raise ValueError(
                f"{type(self).__name__} tokenises a text in pieces and cannot do {unknown}; leave them out."
            )
        start = self.tokenizer("", add_special_tokens=add_special_tokens)["input_ids"]
        rows = [start + self._ids(sample) for sample in text]
        padding = {name: value for name, value in options.items() if name in PADDING}
        return dict(pad_without_fast_tokenizer_warning(self.tokenizer, {"input_ids": rows}, **padding))

    def _ids(self, sample: str) -> list[int]:
        """Ids of one text, each piece tokenised by itself."""
        pieces = [as_piece(piece, self.tokenizer) for piece in sample.split(IMAGE_TOKEN)]
        first, *others = self.tokenizer(pieces, add_special_tokens=False)["input_ids"]
        ids = list(first)
        for piece in others:
            ids += [self.image_token_id] * self.num_image_tokens + piece
        return ids


def as_piece(text: str, tokenizer) -> str:
    """
    What a tokenizer of transformers 5 must be given to get the ids that sentencepiece gives for a text.

    Sentencepiece puts a word mark before every text; transformers only before one that does not begin with a space.
    """
    return f"▁{text}" if isinstance(tokenizer, LlamaTokenizer) and text.startswith((" ", "▁")) else text


__all__ = ["MPLUGOwl2Processor"]
