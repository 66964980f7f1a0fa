"""
A backbone's processor without its video half.

Half of the multimodal processors hold a video processor, and every video processor of transformers needs torchvision,
which scoring pictures does not. May go when transformers loads such processors without torchvision (5.23 does not).
"""

import functools
import inspect
from typing import Any

from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available


def load_processor(name, **kwargs):
    """
    `AutoProcessor.from_pretrained`, where torchvision is missing without the video processor.

    Args:
        name (`str` or `os.PathLike`): Hub name or folder of the backbone.
        **kwargs: Passed on.
    """
    if not is_torchvision_available():
        processor_class = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(name, **kwargs)), None)
        if processor_class is not None and needs_video(processor_class):
            return image_only(processor_class).from_pretrained(name, **kwargs)
    return AutoProcessor.from_pretrained(name, **kwargs)


def needs_video(processor_class: type[Any]) -> bool:
    """Whether a processor class holds a video processor that cannot be had here."""
    return "video_processor" in processor_class.get_attributes() and not is_torchvision_available()


@functools.cache
def image_only(processor_class: Any) -> Any:
    """
    A subclass of the same name whose signature has no video processor: transformers reads the parts of a processor
    from the names in its `__init__`.
    """

    signature = inspect.signature(processor_class.__init__)
    parameters = [value for name, value in signature.parameters.items() if name != "video_processor"]

    class ImageOnly(processor_class):
        def __init__(self, image_processor=None, tokenizer=None, **kwargs):
            super().__init__(image_processor=image_processor, tokenizer=tokenizer, video_processor=None, **kwargs)

        @classmethod
        def from_args_and_dict(cls, args, processor_dict, **kwargs):
            # the parent's looks at the code of `__init__`, which knows no option here, and would lose them all
            parts = cls.get_attributes()
            names = {parameter.name for parameter in parameters} - {"self", "kwargs", *parts}
            options = {name: value for name, value in {**processor_dict, **kwargs}.items() if name in names}
            return cls(**dict(zip(parts, args, strict=True)), **options)

        def __reduce__(self):  # pickle cannot find a class made here; workers that are spawned need it
            return restore, (processor_class, self.__dict__)

    # `inspect.signature` believes this attribute
    ImageOnly.__init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    ImageOnly.__name__ = ImageOnly.__qualname__ = processor_class.__name__
    return ImageOnly


def restore(processor_class: Any, state: dict) -> Any:
    """An unpickled processor without its video half."""
    processor = image_only(processor_class).__new__(image_only(processor_class))
    processor.__dict__.update(state)
    return processor


__all__ = ["image_only", "load_processor", "needs_video"]
