"""The data sets that there are scripts for, by name."""

from .aadb import AADB
from .ava import AVA
from .ava_captions import AVA_CAPTIONS, AVA_COMMENTS
from .baid import BAID
from .data_set import DataSet
from .eva import EVA
from .flickr_aes import FLICKR_AES, FLICKR_AES_WORKERS
from .icaa import ICAA17K, ICAA20K
from .koniq10k import KONIQ10K
from .oasis import OASIS_BEAUTY
from .para import PARA, PARA_RATERS
from .spaq import SPAQ
from .tad66k import TAD66K

DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        AVA,
        AVA_CAPTIONS,
        AVA_COMMENTS,
        TAD66K,
        ICAA17K,
        ICAA20K,
        PARA,
        PARA_RATERS,
        AADB,
        FLICKR_AES,
        FLICKR_AES_WORKERS,
        EVA,
        SPAQ,
        KONIQ10K,
        BAID,
        OASIS_BEAUTY,
    )
}

__all__ = ["DATA_SETS"]
