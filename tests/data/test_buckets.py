"""Which bucket a clip goes to, and pictures that say nothing in any."""

import pytest

from rcv.data.buckets import Bucket, bucket_for, check_fits, parse_buckets
from rcv.training import FinetuneConfig

BUCKETS = parse_buckets("16x256x256, 24x320x512,48x256x256,8x512x320")


def test_buckets_are_read_from_text_and_triples():
    assert parse_buckets(["16x64x96"]) == parse_buckets([[16, 64, 96]]) == [Bucket(16, 64, 96)]
    assert [str(bucket) for bucket in BUCKETS] == ["16x256x256", "24x320x512", "48x256x256", "8x512x320"]


@pytest.mark.parametrize(
    "given", ["16x256", "axbxc", "0x64x64", "16x256x256,16x256x256", [[1, 2]], [[1, 2.5, 3]]]
)
def test_what_is_no_bucket(given):
    with pytest.raises(ValueError, match=r"no bucket|given twice"):
        parse_buckets(given)


@pytest.mark.parametrize(
    ("size", "frames", "stride", "expected"),
    [
        ((480, 480), 100, 1, "48x256x256"),
        ((480, 480), 40, 1, "16x256x256"),
        ((480, 480), 48, 2, "16x256x256"),
        ((720, 1280), 100, 1, "24x320x512"),
        ((720, 1280), 20, 1, "16x256x256"),
        ((1280, 720), 8, 1, "8x512x320"),
        ((720, 1280), 15, 1, "8x512x320"),
        ((720, 1280), 7, 1, "None"),
    ],
)
def test_a_clip_goes_to_the_nearest_aspect_that_it_is_long_enough_for(size, frames, stride, expected):
    assert str(bucket_for(BUCKETS, size, frames, stride)) == expected


def test_pictures_that_say_nothing():
    check_fits((64, 64), (512, 512))
    check_fits((1080, 1920), (64, 64))
    with pytest.raises(ValueError, match="1x1 pixels would be enlarged 64 times"):
        check_fits((1, 1), (64, 64))
    with pytest.raises(ValueError, match=r"a sample of 64x64 would show 1\.6%"):
        check_fits((64, 4096), (64, 64))


def test_settings_take_frames_and_size_from_the_largest_bucket():
    config = FinetuneConfig(buckets="16x256x256,24x320x512")
    assert (config.frames, config.size) == (24, (320, 512))
    longer = FinetuneConfig(buckets="48x256x256,24x320x512")
    assert (longer.frames, longer.size) == (48, (320, 512))
    assert FinetuneConfig.model_validate(config.model_dump(mode="json")) == config
    assert FinetuneConfig(frames=8, size=64).shapes() == [Bucket(8, 64, 64)]
    with pytest.raises(ValueError, match=r"frames is 8, but buckets name their own, 24; leave frames out"):
        FinetuneConfig(buckets="16x256x256,24x320x512", frames=8)
    with pytest.raises(ValueError, match="'16x256' is no bucket"):
        FinetuneConfig(buckets="16x256")
    with pytest.raises(ValueError, match="window is 30"):
        FinetuneConfig(buckets="16x256x256", window=30, preset="streaming")
