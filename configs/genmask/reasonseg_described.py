"""GenMask on ReasonSeg in two stages: Qwen2.5-VL first writes what the question means, then GenMask segments that.

Paper: arXiv 2603.23906, ReasonSeg gIoU / cIoU 51.1 / 50.9 val, 52.3 / 45.8 test. The template of
the question to the VLM is ours (``description_writer.template``).
Command: ``python tools/dataset_tools/write_descriptions.py configs/genmask/reasonseg_described.py OUT --split val``,
then ``tools/dist_test.sh configs/genmask/reasonseg_described.py CHECKPOINT 8``; OUT is the file named below.
Hardware: one GPU of 24 GB writes them. Expected number: not reproduced yet.
"""

_base_ = ['./reasonseg.py']

qwen = 'Qwen/Qwen2.5-VL-7B-Instruct'
description_writer = dict(
    type='genseg_mm.DescriptionWriter',
    model=dict(
        type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained',
        pretrained_model_name_or_path=qwen,
        dtype='bfloat16',
    ),
    processor=qwen,
)
use = dict(
    type='genseg_mm.UseDescriptions',
    file='{{$GENSEG_DATA:data}}/ReasonSeg/descriptions.json',
)
test_pipeline = [*_base_.test_pipeline[:-2], use, *_base_.test_pipeline[-2:]]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
